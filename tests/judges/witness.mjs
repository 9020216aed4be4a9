// What the Node judges share: cases, their results, and sounds. See witness.py.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const KEY = process.env.JUDGE_KEY;
export const PORT = Number(process.env.JUDGE_PORT);
export const MODEL = "gpt-4o-realtime-preview";
export const HEARD = "hello can you tell me what you heard me say";
export const ECHO = `You said: ${HEARD}.`;
// A picture; the model says of it that it is "a picture".
export const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg==";
export const STORY = "Once upon a time there was a king. He";

const CASE_MS = 60_000;
const cases = [];

// An async function that throws if the server fails the case, and may return what is worth telling.
export function judge(name, check) {
  cases.push([name, check]);
}

export async function main() {
  process.on("unhandledRejection", (error) => console.error("unhandled:", error));
  for (const [name, check] of cases) {
    const began = performance.now();
    let ok = true;
    let detail = "";
    let overdue;
    try {
      const limit = new Promise((_, reject) => {
        overdue = setTimeout(() => reject(new Error("timeout")), CASE_MS);
      });
      detail = (await Promise.race([check(), limit])) ?? "";
    } catch (error) {
      console.error(name, error);
      ok = false;
      detail = String(error.stack ?? error).slice(0, 4000);
    }
    clearTimeout(overdue);
    const seconds = Math.round((performance.now() - began) / 10) / 100;
    process.stdout.write(JSON.stringify({ case: name, ok, detail, seconds }).replace('"case":', '"case": ') + "\n");
  }
  process.exit(0);
}

// A spoken question, pcm16 at 24 kHz, with a second of silence after it.
export function question() {
  return readFileSync(join(process.env.JUDGE_SOUNDS, "question.pcm"));
}

// Every server frame of every golden script of the preview dialect, or of GA (`golden_frames.py`).
export function frames(file = process.env.JUDGE_FRAMES) {
  return readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line));
}

export const gaFrames = () => frames(process.env.JUDGE_FRAMES_GA);

export function checkSpeech(sound, atLeastMs) {
  const ms = sound.length / 48;
  assert.ok(ms >= atLeastMs, `${ms} ms of audio, not ${atLeastMs}`);
  let sum = 0;
  for (let at = 0; at + 1 < sound.length; at += 2) sum += (sound.readInt16LE(at) / 32768) ** 2;
  const loudness = Math.sqrt(sum / (sound.length / 2));
  assert.ok(loudness > 0.01, `loudness is ${loudness}`);
}

export const WEATHER = {
  type: "function",
  name: "get_weather",
  description: "The weather of a place.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
