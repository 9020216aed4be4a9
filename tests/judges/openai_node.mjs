// Judge: the npm package `openai`, its preview surface `openai/beta/realtime`.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import OpenAI, { AzureOpenAI, OpenAIError } from "openai";
import { OpenAIRealtimeWebSocket } from "openai/beta/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/beta/realtime/ws";
import ts from "typescript";
import { ECHO, HEARD, KEY, MODEL, PORT, STORY, WEATHER, checkSpeech, frames, judge, main, question } from "./witness.mjs";

const TEXT = { modalities: ["text"] };

function openai(apiKey = KEY) {
  return new OpenAI({ apiKey, baseURL: `https://127.0.0.1:${PORT}/v1` });
}

function azure(apiVersion = "2024-10-01-preview", auth = { apiKey: KEY }) {
  return new AzureOpenAI({ endpoint: `https://127.0.0.1:${PORT}`, deployment: MODEL, apiVersion, ...auth });
}

// One connection, and what it was sent.
class Talk {
  constructor(rt) {
    this.rt = rt;
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

  async update(session) {
    this.rt.send({ type: "session.update", session });
    return (await this.last("session.updated")).session;
  }

  async say(text) {
    const content = [{ type: "input_text", text }];
    this.rt.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    return (await this.last("conversation.item.created")).item;
  }

  speak(sound) {
    for (let at = 0; at < sound.length; at += 4800) {
      const audio = sound.subarray(at, at + 4800).toString("base64");
      this.rt.send({ type: "input_audio_buffer.append", audio });
    }
  }
}

async function talking(check, rt = new OpenAIRealtimeWS({ model: MODEL }, openai())) {
  const talk = new Talk(rt);
  assert.equal((await talk.next()).type, "session.created");
  await talk.until("conversation.created");
  try {
    return await check(talk);
  } finally {
    rt.close();
  }
}

const words = (events, kind = "response.audio_transcript.delta") =>
  events.filter((event) => event.type === kind).map((event) => event.delta).join("");

const sound = (events) =>
  Buffer.concat(
    events.filter((event) => event.type === "response.audio.delta").map((event) => Buffer.from(event.delta, "base64")),
  );

async function typed(talk) {
  await talk.say("Good morning.");
  talk.rt.send({ type: "response.create", response: TEXT });
  const events = await talk.until("response.done");
  assert.equal(words(events, "response.text.delta"), "You said: Good morning.");
  assert.equal(events.at(-1).response.output[0].content[0].text, "You said: Good morning.");
}

// --------------------------------------------------------------------------------------------------- connect

judge("connect: ws class, Bearer; a typed conversation", () => talking(typed));

judge("connect: WebSocket class, key in the subprotocol; a typed conversation", () =>
  talking(typed, new OpenAIRealtimeWebSocket({ model: MODEL }, openai())),
);

judge("connect: ws class, Azure, api-key header, every api-version", async () => {
  for (const version of ["2024-10-01-preview", "2024-12-17", "2025-04-01-preview"]) {
    await talking(typed, await OpenAIRealtimeWS.azure(azure(version)));
  }
});

judge("connect: ws class, Azure, Entra token", async () => {
  const client = azure("2024-10-01-preview", { azureADTokenProvider: async () => KEY });
  await talking(typed, await OpenAIRealtimeWS.azure(client));
});

judge("connect: WebSocket class, Azure, key and Entra token in the query", async () => {
  await talking(typed, await OpenAIRealtimeWebSocket.azure(azure()));
  const client = azure("2024-10-01-preview", { azureADTokenProvider: async () => KEY });
  await talking(typed, await OpenAIRealtimeWebSocket.azure(client));
});

judge("refused: a wrong key: its error and a close with 3000; on Azure 401", async () => {
  const rt = new OpenAIRealtimeWS({ model: MODEL }, openai("wrong"));
  const closed = new Promise((resolve) => rt.socket.on("close", (code) => resolve(code)));
  const error = await new Promise((resolve) => rt.on("error", resolve));
  assert.ok(error instanceof OpenAIError);
  assert.equal(error.error.code, "invalid_api_key");
  assert.equal(await closed, 3000);
  const refused = await OpenAIRealtimeWS.azure(azure("2024-10-01-preview", { apiKey: "wrong" }));
  assert.match((await new Promise((resolve) => refused.on("error", resolve))).message, /401/);
});

judge("reconnect: a new session each time, and an orderly close", async () => {
  const ids = new Set();
  for (let round = 0; round < 3; round++) {
    const rt = new OpenAIRealtimeWS({ model: MODEL }, openai());
    const closed = new Promise((resolve) => rt.socket.on("close", (code) => resolve(code)));
    await talking((talk) => ids.add(talk.events[0].session.id), rt);
    assert.equal(await closed, 1000);
  }
  assert.equal(ids.size, 3);
});

// --------------------------------------------------------------------------------------------------- session

judge("session.update: everything that can be set, and back to null", () =>
  talking(async (talk) => {
    const wanted = {
      modalities: ["text", "audio"],
      instructions: "You are brief.",
      voice: "verse",
      input_audio_format: "g711_ulaw",
      output_audio_format: "g711_alaw",
      input_audio_transcription: { model: "whisper-1" },
      tools: [WEATHER],
      tool_choice: "required",
      temperature: 0.7,
      max_response_output_tokens: 200,
      speed: 1.1,
    };
    const turns = { type: "server_vad", threshold: 0.4, prefix_padding_ms: 250, silence_duration_ms: 450 };
    const session = await talk.update({ ...wanted, turn_detection: turns });
    const { input_audio_transcription: transcription, ...plain } = wanted;
    for (const [name, value] of Object.entries(plain)) assert.deepEqual(session[name], value);
    assert.equal(session.input_audio_transcription.model, transcription.model);
    for (const [name, value] of Object.entries(turns)) assert.equal(session.turn_detection[name], value);
    assert.equal((await talk.update({ turn_detection: null })).turn_detection, null);
  }),
);

judge("errors: its own error, with the client's event_id, and the session lives on", () =>
  talking(async (talk) => {
    talk.rt.send({ type: "session.update", event_id: "too_hot", session: { temperature: 9 } });
    const { error } = await talk.last("error");
    assert.equal(error.code, "decimal_above_max_value");
    assert.equal(error.event_id, "too_hot");
    assert.ok(talk.error instanceof OpenAIError);
    assert.equal(talk.error.error.param, "session.temperature");
    await typed(talk);
  }),
);

// ------------------------------------------------------------------------------------------------- responses

judge("speech in: server VAD, transcript, spoken answer", () =>
  talking(async (talk) => {
    await talk.update({ input_audio_transcription: { model: "whisper-1" } });
    talk.speak(question());
    const heard = "conversation.item.input_audio_transcription.completed";
    const events = await talk.until("response.done");
    if (!events.some((event) => event.type === heard)) events.push(...(await talk.until(heard)));
    assert.equal(events.find((event) => event.type === heard).transcript.trim(), HEARD);
    assert.equal(words(events), ECHO);
    checkSpeech(sound(events), 1500);
  }),
);

judge("speech in by hand: VAD off, append, clear, append, commit, response.create", () =>
  talking(async (talk) => {
    await talk.update({ turn_detection: null });
    talk.speak(Buffer.alloc(48_000));
    talk.rt.send({ type: "input_audio_buffer.clear" });
    await talk.last("input_audio_buffer.cleared");
    talk.speak(question());
    talk.rt.send({ type: "input_audio_buffer.commit" });
    await talk.last("conversation.item.created");
    talk.rt.send({ type: "response.create", response: TEXT });
    assert.equal(words(await talk.until("response.done"), "response.text.delta"), ECHO);
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
    assert.equal(words(await talk.until("response.done")), "The result of get_weather is temperature 21.");
  }),
);

judge("barge-in: the answer is cut, truncated, and the next one comes", () =>
  talking(async (talk) => {
    await talk.say("Tell me a story.");
    talk.rt.send({ type: "response.create" });
    const { item_id } = await talk.last("response.audio.delta");
    talk.speak(question());
    const { response } = await talk.last("response.done");
    assert.deepEqual([response.status, response.status_details.reason], ["cancelled", "turn_detected"]);
    talk.rt.send({ type: "conversation.item.truncate", item_id, content_index: 0, audio_end_ms: 20 });
    assert.equal((await talk.last("conversation.item.truncated")).item_id, item_id);
    await talk.until("response.done");
    assert.ok(words(talk.events).endsWith(ECHO));
  }),
);

judge("cancel: the answer ends where it is", () =>
  talking(async (talk) => {
    await talk.say("Tell me a story.");
    talk.rt.send({ type: "response.create", response: TEXT });
    await talk.until("response.text.delta");
    talk.rt.send({ type: "response.cancel" });
    const { response } = await talk.last("response.done");
    assert.equal(response.status_details.reason, "client_cancelled");
    assert.ok(STORY.startsWith(response.output[0].content[0].text));
  }),
);

judge("out of band: own context and metadata, beside the conversation", () =>
  talking(async (talk) => {
    const input = [{ type: "message", role: "user", content: [{ type: "input_text", text: "Hi." }] }];
    const metadata = { topic: "greeting" };
    talk.rt.send({ type: "response.create", response: { conversation: "none", metadata, input, ...TEXT } });
    const { response } = await talk.last("response.done");
    assert.deepEqual(response.metadata, metadata);
    assert.equal(response.output[0].content[0].text, "You said: Hi.");
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

// ------------------------------------------------------------------------------------------------ all frames

// What the compiler says of a frame: start of its text, and whose mistake it is and why.
const unknown = (field) => `Object literal may only specify known properties, and '"${field}"' does not exist`;
const KNOWN = [
  [/./, "Type 'null' is not assignable to type '", "its types say absent where the service says null"],
  [/^transcription_session\.created$/, "", "transcription_session.created has no type"],
  [/^session\.updated$/, "Type '{ type: string; name: string; }' is not", "tool_choice is typed as a string"],
  [/transcription\.completed$/, "Property 'usage' is missing", "usage is required, but is told since May 2025 only"],
  [/^session\./, unknown("object"), "a session has what can be set, not what is shown (object, expires_at, ...)"],
  [/^response\.done$/, unknown("cached_tokens_details"), "usage lacks cached_tokens_details"],
  [/^response\.done$/, unknown("message"), "the error of a failed response lacks message"],
  [/arguments\.done$/, unknown("name"), "function_call_arguments.done lacks name"],
  [/^transcription_session\.updated$/, unknown("create_response"), "turn_detection of a transcription lacks it"],
  [/^transcription_session\.updated$/, unknown("id"), "a transcription session has no id"],
];

judge("golden frames, by the TypeScript compiler with its types", () => {
  const all = frames();
  const lines = ['import type { RealtimeServerEvent as E } from "openai/resources/beta/realtime/realtime";'];
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
    const reason = KNOWN.find(([kind, start]) => frame.type.match(kind) && text.startsWith(start))?.[2];
    touched.add(line);
    if (reason) met[reason] = (met[reason] ?? 0) + 1;
    else wrong[`${frame.type}: ${text}`] ??= script;
  }
  for (const [, , reason] of KNOWN) if (!met[reason]) wrong[`not met: ${reason}`] = "";
  assert.deepEqual(wrong, {});
  const told = Object.entries(met).map(([reason, count]) => `${count} x ${reason}`);
  return [`${all.length} frames: ${all.length - touched.size} valid`, ...told].join("; ");
});

await main();
