/** A clip from the microphone, as a WAV file: what browsers record themselves, the server does not read. */

import { wavFile } from "./recording.js";

const SAMPLE_RATE = 24000;

/** Browsers offer microphones to pages from HTTPS or the same machine only. */
export const canRecord = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

/**
 * Start to record.
 *
 * @returns {Promise<{stop: () => void, clip: Promise<Blob>}>} `clip` comes after `stop`
 * @throws {DOMException} no microphone, or no leave to use it
 */
export async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const clip = new Promise((resolve, reject) => {
    recorder.onstop = () => {
      for (const track of stream.getTracks()) track.stop();
      wavOf(new Blob(pieces)).then(resolve, reject);
    };
  });
  recorder.start();
  return { stop: () => recorder.state === "recording" && recorder.stop(), clip };
}

async function wavOf(blob) {
  const decoder = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  const audio = await decoder.decodeAudioData(await blob.arrayBuffer());
  const pcm = new Int16Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    const samples = audio.getChannelData(channel);
    for (let i = 0; i < pcm.length; i++) {
      const value = (samples[i] * 32767) / audio.numberOfChannels;
      pcm[i] += Math.max(-32768, Math.min(32767, Math.round(value)));
    }
  }
  return wavFile(pcm, SAMPLE_RATE);
}
