// What the judges of the npm package `openai` share: one conversation in either dialect.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import ts from "typescript";
import { ECHO, HEARD, STORY, WEATHER, checkSpeech, judge, question } from "./witness.mjs";

// How a dialect spells things: types of events, and settings.
export const PREVIEW = {
  audio: "response.audio.delta",
  transcript: "response.audio_transcript.delta",
  text: "response.text.delta",
  item: "conversation.item.created",
  session: (settings) => settings,
  inText: { modalities: ["text"] },
  written: { input_audio_transcription: { model: "whisper-1" } },
  byHand: { turn_detection: null },
};

export const GA = {
  audio: "response.output_audio.delta",
  transcript: "response.output_audio_transcript.delta",
  text: "response.output_text.delta",
  item: "conversation.item.done",
  session: (settings) => ({ type: "realtime", ...settings }),
  inText: { output_modalities: ["text"] },
  written: { audio: { input: { transcription: { model: "whisper-1" } } } },
  byHand: { audio: { input: { turn_detection: null } } },
};

// One connection, and what it was sent.
export class Talk {
  constructor(rt, dialect) {
    this.rt = rt;
    this.dialect = dialect;
    this.events = [];
    this.read = 0;
    this.wake = () => {};
    rt.on("event", (event) => {
      this.events.push(event);
      this.wake();
    });
    rt.on("error", (error) => {
      this.error = error;
      this.wake();
    });
  }

  async next() {
    while (this.read === this.events.length) {
      if (this.error && !this.error.error) throw this.error;
      await new Promise((resolve) => (this.wake = resolve));
    }
    return this.events[this.read++];
  }

  // Events up to the first of this type.
  async until(kind) {
    const got = [];
    do {
      got.push(await this.next());
      assert.ok(kind === "error" || got.at(-1).type !== "error", JSON.stringify(got.at(-1)));
    } while (got.at(-1).type !== kind);
    return got;
  }

  async last(kind) {
    return (await this.until(kind)).at(-1);
  }

  async update(settings) {
    this.rt.send({ type: "session.update", session: this.dialect.session(settings) });
    return (await this.last("session.updated")).session;
  }

  async say(text) {
    const content = [{ type: "input_text", text }];
    this.rt.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    return (await this.last(this.dialect.item)).item;
  }

  speak(sound) {
    for (let at = 0; at < sound.length; at += 4800) {
      const audio = sound.subarray(at, at + 4800).toString("base64");
      this.rt.send({ type: "input_audio_buffer.append", audio });
    }
  }

  words(events, kind = this.dialect.transcript) {
    return events.filter((event) => event.type === kind).map((event) => event.delta).join("");
  }

  sound(events) {
    const deltas = events.filter((event) => event.type === this.dialect.audio);
    return Buffer.concat(deltas.map((event) => Buffer.from(event.delta, "base64")));
  }
}

// The client says good morning and is answered in text.
export async function typed(talk) {
  await talk.say("Good morning.");
  talk.rt.send({ type: "response.create", response: talk.dialect.inText });
  const events = await talk.until("response.done");
  assert.equal(talk.words(events, talk.dialect.text), "You said: Good morning.");
  assert.equal(events.at(-1).response.output[0].content[0].text, "You said: Good morning.");
}

// The cases that every edition of the client passes alike; `talking` hands its argument a Talk.
export function commonCases(talking) {
  judge("speech in: server VAD, transcript, spoken answer", () =>
    talking(async (talk) => {
      await talk.update(talk.dialect.written);
      talk.speak(question());
      const heard = "conversation.item.input_audio_transcription.completed";
      const events = await talk.until("response.done");
      if (!events.some((event) => event.type === heard)) events.push(...(await talk.until(heard)));
      assert.equal(events.find((event) => event.type === heard).transcript.trim(), HEARD);
      assert.equal(talk.words(events), ECHO);
      checkSpeech(talk.sound(events), 1500);
    }),
  );

  judge("speech in by hand: VAD off, append, clear, append, commit, response.create", () =>
    talking(async (talk) => {
      await talk.update(talk.dialect.byHand);
      talk.speak(Buffer.alloc(48_000));
      talk.rt.send({ type: "input_audio_buffer.clear" });
      await talk.last("input_audio_buffer.cleared");
      talk.speak(question());
      talk.rt.send({ type: "input_audio_buffer.commit" });
      await talk.last(talk.dialect.item);
      talk.rt.send({ type: "response.create", response: talk.dialect.inText });
      assert.equal(talk.words(await talk.until("response.done"), talk.dialect.text), ECHO);
    }),
  );

  judge("function call: round trip", () =>
    talking(async (talk) => {
      await talk.update({ tools: [WEATHER] });
      await talk.say("How is the weather in Rome?");
      talk.rt.send({ type: "response.create" });
      const [call] = (await talk.last("response.done")).response.output;
      assert.deepEqual([call.name, JSON.parse(call.arguments)], ["get_weather", { city: "Rome" }]);
      const item = { type: "function_call_output", call_id: call.call_id, output: '{"temperature": 21}' };
      talk.rt.send({ type: "conversation.item.create", item });
      talk.rt.send({ type: "response.create" });
      assert.equal(talk.words(await talk.until("response.done")), "The result of get_weather is temperature 21.");
    }),
  );

  judge("barge-in: the answer is cut, truncated, and the next one comes", () =>
    talking(async (talk) => {
      await talk.say("Tell me a story.");
      talk.rt.send({ type: "response.create" });
      const { item_id } = await talk.last(talk.dialect.audio);
      talk.speak(question());
      const { response } = await talk.last("response.done");
      assert.deepEqual([response.status, response.status_details.reason], ["cancelled", "turn_detected"]);
      talk.rt.send({ type: "conversation.item.truncate", item_id, content_index: 0, audio_end_ms: 20 });
      assert.equal((await talk.last("conversation.item.truncated")).item_id, item_id);
      await talk.until("response.done");
      assert.ok(talk.words(talk.events).endsWith(ECHO));
    }),
  );

  judge("cancel: the answer ends where it is", () =>
    talking(async (talk) => {
      await talk.say("Tell me a story.");
      talk.rt.send({ type: "response.create", response: talk.dialect.inText });
      await talk.until(talk.dialect.text);
      talk.rt.send({ type: "response.cancel" });
      const { response } = await talk.last("response.done");
      assert.equal(response.status_details.reason, "client_cancelled");
      assert.ok(STORY.startsWith(response.output[0].content[0].text));
    }),
  );

  judge("out of band: own context and metadata, beside the conversation", () =>
    talking(async (talk) => {
      const input = [{ type: "message", role: "user", content: [{ type: "input_text", text: "Hi." }] }];
      const response = { conversation: "none", metadata: { topic: "greeting" }, input, ...talk.dialect.inText };
      talk.rt.send({ type: "response.create", response });
      const done = await talk.last("response.done");
      assert.deepEqual(done.response.metadata, response.metadata);
      assert.equal(done.response.output[0].content[0].text, "You said: Hi.");
    }),
  );

  judge("items: retrieved, deleted", () =>
    talking(async (talk) => {
      const { id } = await talk.say("Good morning.");
      talk.rt.send({ type: "conversation.item.retrieve", item_id: id });
      assert.equal((await talk.last("conversation.item.retrieved")).item.content[0].text, "Good morning.");
      talk.rt.send({ type: "conversation.item.delete", item_id: id });
      assert.equal((await talk.last("conversation.item.deleted")).item_id, id);
    }),
  );
}

// What the TypeScript compiler says of object literals with keys that a type lacks.
export const unknown = (field) => `Object literal may only specify known properties, and '"${field}"' does not exist`;

// Every golden frame as a value of the client's own type of it. `known` is what the compiler says of a frame: type of the
// event, start of its text, and whose mistake it is and why.
export function judgeFrames(all, module, known) {
  const lines = [`import type { RealtimeServerEvent as E } from "${module}";`];
  all.forEach(({ frame }, at) => {
    lines.push(`export const f${at}: Extract<E, { type: "${frame.type}" }> = ${JSON.stringify(frame)};`);
  });
  writeFileSync("frames.ts", lines.join("\n"));
  // Where a null is wrong the compiler looks no further, so it looks once more without minding them.
  const diagnostics = [true, false].flatMap((strictNullChecks) =>
    ts.getPreEmitDiagnostics(
      ts.createProgram(["frames.ts"], {
        strict: true,
        strictNullChecks,
        noEmit: true,
        skipLibCheck: true,
        types: [],
        module: ts.ModuleKind.ESNext,
        moduleResolution: ts.ModuleResolutionKind.Bundler,
        target: ts.ScriptTarget.ES2022,
      }),
    ),
  );
  const wrong = {};
  const met = {};
  const touched = new Set();
  for (const diagnostic of diagnostics) {
    const line = diagnostic.file.getLineAndCharacterOfPosition(diagnostic.start).line;
    const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ");
    const { frame, script } = all[line - 1];
    const reason = known.find(([kind, start]) => frame.type.match(kind) && text.startsWith(start))?.[2];
    touched.add(line);
    if (reason) met[reason] = (met[reason] ?? 0) + 1;
    else wrong[`${frame.type}: ${text}`] ??= script;
  }
  for (const [, , reason] of known) if (!met[reason]) wrong[`not met: ${reason}`] = "";
  assert.deepEqual(wrong, {});
  const told = Object.entries(met).map(([reason, count]) => `${count} x ${reason}`);
  return [`${all.length} frames: ${all.length - touched.size} valid`, ...told].join("; ");
}
