// Judge: the npm package `openai`, its GA surface `openai/realtime`.

import assert from "node:assert/strict";
import OpenAI, { AuthenticationError, AzureOpenAI, BadRequestError, OpenAIError } from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { VERSION } from "openai/version";
import { GA, Talk, commonCases, judgeFrames, typed, unknown } from "./openai_talk.mjs";
import { KEY, MODEL, PORT, WEATHER, gaFrames, judge, main } from "./witness.mjs";

// Since 7 its Azure class takes Azure's GA address; before, that of the preview.
const AZURE_IS_GA = Number(VERSION.split(".")[0]) >= 7;

// At Azure's GA address the class of OpenAI does as well.
function openai(apiKey = KEY, path = "v1") {
  return new OpenAI({ apiKey, baseURL: `https://127.0.0.1:${PORT}/${path}` });
}

function azure(auth = { apiKey: KEY }) {
  return new AzureOpenAI({
    endpoint: `https://127.0.0.1:${PORT}`,
    deployment: MODEL,
    apiVersion: "2025-04-01-preview",
    ...auth,
  });
}

async function talking(check, rt = new OpenAIRealtimeWS({ model: MODEL }, openai())) {
  const talk = new Talk(rt, GA);
  const created = await talk.next();
  assert.deepEqual([created.type, created.session.type], ["session.created", "realtime"]);
  try {
    return await check(talk);
  } finally {
    rt.close();
  }
}

// --------------------------------------------------------------------------------------------------- connect

judge("connect: ws class, Bearer, OpenAI's address and Azure's; a typed conversation", async () => {
  await talking(typed);
  await talking(typed, new OpenAIRealtimeWS({ model: MODEL }, openai(KEY, "openai/v1")));
});

judge("connect: WebSocket class, key in the subprotocol; a typed conversation", () =>
  talking(typed, new OpenAIRealtimeWebSocket({ model: MODEL }, openai())),
);

if (AZURE_IS_GA) {
  judge("connect: ws class, Azure, api-key header and Entra token; a typed conversation", async () => {
    await talking(typed, await OpenAIRealtimeWS.azure(azure()));
    const client = azure({ azureADTokenProvider: async () => KEY });
    await talking(typed, await OpenAIRealtimeWS.azure(client));
  });

  judge("connect: WebSocket class, Azure, api-key header; a typed conversation", async () => {
    await talking(typed, await OpenAIRealtimeWebSocket.azure(azure()));
  });
} else {
  judge("Azure class: session.type is an unknown_parameter at the preview's address", async () => {
    const rt = await OpenAIRealtimeWS.azure(azure());
    const talk = new Talk(rt, GA);
    rt.socket.on("open", () => rt.send({ type: "session.update", session: { type: "realtime" } }));
    const { error } = await talk.last("error");
    assert.deepEqual([error.code, error.param], ["unknown_parameter", "session.type"]);
    rt.close();
  });
}

judge("clientSecrets.create: a connection with the secret, as browsers do; refused: its own errors", async () => {
  const session = { type: "realtime", model: MODEL, instructions: "Of the secret." };
  const expires_after = { anchor: "created_at", seconds: 60 };
  for (const path of ["v1", "openai/v1"]) {
    const { clientSecrets } = openai(KEY, path).realtime;
    const minted = await clientSecrets.create({ session, expires_after });
    assert.match(minted.value, /^ek_/);
    assert.equal(minted.session.instructions, "Of the secret.");
    const rt = new OpenAIRealtimeWebSocket({ model: MODEL, dangerouslyAllowBrowser: true }, openai(minted.value, path));
    await talking(async (talk) => {
      assert.equal(talk.events[0].session.instructions, "Of the secret.");
      await typed(talk);
    }, rt);
    await assert.rejects(clientSecrets.create({ session: { type: "realtime", voice: "alloy" } }), (error) => {
      assert.ok(error instanceof BadRequestError);
      assert.deepEqual([error.code, error.param], ["unknown_parameter", "session.voice"]);
      return true;
    });
    await assert.rejects(openai(minted.value, path).realtime.clientSecrets.create({}), AuthenticationError);
  }
});

judge("refused: a wrong key: its error and a close with 3000; at Azure's address 401", async () => {
  const rt = new OpenAIRealtimeWS({ model: MODEL }, openai("wrong"));
  const closed = new Promise((resolve) => rt.socket.on("close", (code) => resolve(code)));
  const error = await new Promise((resolve) => rt.on("error", resolve));
  assert.ok(error instanceof OpenAIError);
  assert.equal(error.error.code, "invalid_api_key");
  assert.equal(await closed, 3000);
  const refused = new OpenAIRealtimeWS({ model: MODEL }, openai("wrong", "openai/v1"));
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
    const turns = { type: "server_vad", threshold: 0.4, prefix_padding_ms: 250, silence_duration_ms: 450 };
    const wanted = {
      output_modalities: ["text"],
      instructions: "You are brief.",
      tools: [WEATHER],
      tool_choice: "required",
      max_output_tokens: 200,
      tracing: "auto",
      include: ["item.input_audio_transcription.logprobs"],
    };
    const input = { format: { type: "audio/pcmu" }, transcription: { model: "whisper-1" }, turn_detection: turns };
    const output = { format: { type: "audio/pcma" }, voice: "verse", speed: 1.1 };
    const session = await talk.update({ ...wanted, audio: { input, output } });
    for (const [name, value] of Object.entries(wanted)) assert.deepEqual(session[name], value);
    assert.equal(session.audio.input.transcription.model, "whisper-1");
    assert.deepEqual(session.audio.output, output);
    for (const [name, value] of Object.entries(turns)) {
      assert.equal(session.audio.input.turn_detection[name], value);
    }
    const updated = await talk.update({ audio: { input: { turn_detection: null } } });
    assert.equal(updated.audio.input.turn_detection, null);
  }),
);

judge("errors: its own error, with the client's event_id, and the session lives on", () =>
  talking(async (talk) => {
    talk.rt.send({ type: "session.update", event_id: "much", session: { type: "realtime", max_output_tokens: 9000 } });
    const { error } = await talk.last("error");
    assert.deepEqual([error.code, error.event_id], ["integer_above_max_value", "much"]);
    assert.ok(talk.error instanceof OpenAIError);
    assert.equal(talk.error.error.param, "session.max_output_tokens");
    await typed(talk);
  }),
);

// ------------------------------------------------------------------------------------------------- responses

commonCases(talking);

// ------------------------------------------------------------------------------------------------ all frames

// What the compiler says of a frame: start of its text, and whose mistake it is and why.
const shown = "a session has what can be set, not what is shown (object, expires_at, ...)";
const KNOWN = [
  [/./, "Type 'null' is not assignable to type '", "its types say absent where the service says null"],
  [/^session\./, unknown("object"), shown],
  [/\.delta$/, unknown("obfuscation"), "deltas carry obfuscation, recordings show"],
  [/^response\.content_part\./, unknown("content"), "Azure repeats the part as content, recordings show"],
  ...(AZURE_IS_GA ? [] : [[/^response\.done$/, unknown("message"), "the error of a failed response lacks message"]]),
];

judge("golden frames, by the TypeScript compiler with its types", () =>
  judgeFrames(gaFrames(), "openai/resources/realtime/realtime", KNOWN),
);

await main();
