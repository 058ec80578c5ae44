/** A clip from the microphone, as a WAV file, which every server reads. */

import { samplesOfFile, wavFile } from "../speech/wav.js";

const SAMPLE_RATE = 24000;
const METER_MS = 50;
const METER_SAMPLES = 1024;

/** Browsers offer microphones to pages from HTTPS or the same machine only. */
export const canRecord = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

/**
 * Start to record.
 *
 * @param {(level: number) => void} show is told how loud it is, 0 to 1, many times a second
 * @returns {Promise<{stop: () => void, clip: Promise<Blob>}>} `clip` comes after `stop`
 * @throws {DOMException} no microphone, or no leave to use it
 */
export async function record(show) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const endMeter = meter(stream, show);
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const clip = new Promise((resolve, reject) => {
    recorder.onstop = () => {
      endMeter();
      for (const track of stream.getTracks()) track.stop();
      wavOf(new Blob(pieces)).then(resolve, reject);
    };
  });
  recorder.start();
  return { stop: () => recorder.state === "recording" && recorder.stop(), clip };
}

/** Tell how loud a stream is, until the function that is returned is called. */
function meter(stream, show) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: METER_SAMPLES });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(METER_SAMPLES);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    show(samples.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0));
  }, METER_MS);
  return () => {
    clearInterval(timer);
    context.close();
    show(0);
  };
}

async function wavOf(blob) {
  return wavFile(await samplesOfFile(blob, SAMPLE_RATE), SAMPLE_RATE);
}
