// Judge: the npm package `openai`, its preview surface `openai/beta/realtime`.

import assert from "node:assert/strict";
import OpenAI, { AzureOpenAI, OpenAIError } from "openai";
import { OpenAIRealtimeWebSocket } from "openai/beta/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/beta/realtime/ws";
import { PREVIEW, Talk, commonCases, judgeFrames, typed, unknown } from "./openai_talk.mjs";
import { KEY, MODEL, PORT, WEATHER, frames, judge, main } from "./witness.mjs";

function openai(apiKey = KEY) {
  return new OpenAI({ apiKey, baseURL: `https://127.0.0.1:${PORT}/v1` });
}

function azure(apiVersion = "2024-10-01-preview", auth = { apiKey: KEY }) {
  return new AzureOpenAI({ endpoint: `https://127.0.0.1:${PORT}`, deployment: MODEL, apiVersion, ...auth });
}

async function talking(check, rt = new OpenAIRealtimeWS({ model: MODEL }, openai())) {
  const talk = new Talk(rt, PREVIEW);
  assert.equal((await talk.next()).type, "session.created");
  await talk.until("conversation.created");
  try {
    return await check(talk);
  } finally {
    rt.close();
  }
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

commonCases(talking);

// ------------------------------------------------------------------------------------------------ all frames

// What the compiler says of a frame: start of its text, and whose mistake it is and why.
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

judge("golden frames, by the TypeScript compiler with its types", () =>
  judgeFrames(frames(), "openai/resources/beta/realtime/realtime", KNOWN),
);

await main();
