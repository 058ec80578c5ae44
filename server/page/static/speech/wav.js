/** WAV files of 16-bit mono samples. */

const HEADER_BYTES = 44;

/** @returns {Blob} */
export function wavFile(pcm, sampleRate) {
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  const ascii = (at, word) => [...word].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  const number = (at, value) => header.setUint32(at, value, true);
  ascii(0, "RIFF");
  number(4, HEADER_BYTES - 8 + pcm.byteLength);
  ascii(8, "WAVEfmt ");
  number(16, 16);
  number(20, (1 << 16) | 1); // one channel of PCM
  number(24, sampleRate);
  number(28, 2 * sampleRate);
  number(32, (16 << 16) | 2); // 16 bits, 2 bytes a sample
  ascii(36, "data");
  number(40, pcm.byteLength);
  return new Blob([header, pcm], { type: "audio/wav" });
}

/** Base64 of a file. @returns {Promise<string>} */
export function base64Of(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** All channels of an audio file as one, 16-bit. @throws {DOMException} the browser cannot read it */
export async function samplesOfFile(blob, sampleRate) {
  const decoder = new OfflineAudioContext(1, 1, sampleRate);
  const audio = await decoder.decodeAudioData(await blob.arrayBuffer());
  const pcm = new Int16Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    const samples = audio.getChannelData(channel);
    for (let i = 0; i < pcm.length; i++) {
      const value = (samples[i] * 32767) / audio.numberOfChannels;
      pcm[i] += Math.max(-32768, Math.min(32767, Math.round(value)));
    }
  }
  return pcm;
}
