// Judge: Microsoft's `rt-client`.

import assert from "node:assert/strict";
import { once } from "node:events";
import { LowLevelRTClient, RTClient, RTError } from "rt-client";
import { WebSocketServer } from "ws";
import { ECHO, HEARD, KEY, MODEL, PORT, STORY, WEATHER, checkSpeech, frames, judge, main, question } from "./witness.mjs";

const ADDRESS = new URL(`ws://127.0.0.1:${PORT}`);
const DEPLOYMENT = "without-conversation-created";
const TEXT = { type: "message", role: "user" };

function connect(credential = { key: KEY }) {
  return new RTClient(ADDRESS, credential, { deployment: DEPLOYMENT });
}

async function talking(check) {
  const client = connect();
  try {
    return await check(client);
  } finally {
    await client.close();
  }
}

async function say(client, text) {
  return client.sendItem({ ...TEXT, content: [{ type: "input_text", text }] });
}

async function speak(client, sound) {
  for (let at = 0; at < sound.length; at += 4800) await client.sendAudio(sound.subarray(at, at + 4800));
}

// All that a response says.
async function heard(response) {
  let words = "";
  const sound = [];
  const calls = [];
  for await (const item of response) {
    if (item.type === "function_call") {
      await item.waitForCompletion();
      calls.push(item);
      continue;
    }
    for await (const content of item) {
      if (content.type === "text") {
        for await (const chunk of content.textChunks()) words += chunk;
      } else {
        const listen = async () => {
          for await (const chunk of content.audioChunks()) sound.push(Buffer.from(chunk));
        };
        const read = async () => {
          for await (const chunk of content.transcriptChunks()) words += chunk;
        };
        await Promise.all([listen(), read()]);
      }
    }
  }
  return { words, calls, sound: Buffer.concat(sound) };
}

judge("connect: api-key", () =>
  talking(async (client) => {
    await client.init();
    assert.match(client.session.id, /^sess_/);
    assert.match(client.session.model, new RegExp(`^${MODEL}`));
  }),
);

judge("connect: Entra token as Bearer", async () => {
  const client = connect({ getToken: async () => ({ token: KEY, expiresOnTimestamp: Date.now() + 3_600_000 }) });
  await client.init();
  await client.close();
});

judge("refused: a wrong key, 401", async () => {
  // It leaves init() waiting, and tells nobody else.
  const refusal = new Promise((resolve) => process.once("unhandledRejection", resolve));
  connect({ key: "wrong" }).init();
  assert.match((await refusal).message, /401/);
});

judge("reconnect: a new session each time", async () => {
  const ids = new Set();
  for (let round = 0; round < 3; round++) {
    await talking(async (client) => {
      await client.init();
      ids.add(client.session.id);
    });
  }
  assert.equal(ids.size, 3);
});

judge("configure: everything that can be set", () =>
  talking(async (client) => {
    const wanted = {
      modalities: ["text", "audio"],
      instructions: "You are brief.",
      voice: "echo",
      input_audio_format: "g711_ulaw",
      output_audio_format: "g711_alaw",
      input_audio_transcription: { model: "whisper-1" },
      tools: [WEATHER],
      tool_choice: "required",
      temperature: 0.7,
      max_response_output_tokens: 200,
    };
    const turns = { type: "server_vad", threshold: 0.4, prefix_padding_ms: 250, silence_duration_ms: 450 };
    const session = await client.configure({ ...wanted, turn_detection: turns });
    for (const [name, value] of Object.entries(wanted)) assert.deepEqual(session[name], value);
    for (const [name, value] of Object.entries(turns)) assert.equal(session.turn_detection[name], value);
    assert.equal((await client.configure({ turn_detection: { type: "none" } })).turn_detection, null);
  }),
);

judge("typed: text answer, then a spoken one", () =>
  talking(async (client) => {
    await client.configure({ modalities: ["text"] });
    const item = await say(client, "Good morning.");
    assert.equal(item.content[0].text, "Good morning.");
    assert.equal((await heard(await client.generateResponse())).words, "You said: Good morning.");
    await client.configure({ modalities: ["text", "audio"] });
    const { words, sound } = await heard(await client.generateResponse());
    assert.equal(words, "You said: Good morning.");
    checkSpeech(sound, 800);
  }),
);

judge("speech in: server VAD, transcript, spoken answer", () =>
  talking(async (client) => {
    await client.configure({
      input_audio_transcription: { model: "whisper-1" },
      turn_detection: { type: "server_vad" },
    });
    await speak(client, question());
    let transcript;
    for await (const event of client.events()) {
      if (event.type === "input_audio") {
        await event.waitForCompletion();
        transcript = event.transcription;
        assert.ok(event.audioEndMillis > event.audioStartMillis);
      } else {
        const { words, sound } = await heard(event);
        assert.equal(words, ECHO);
        checkSpeech(sound, 1500);
        assert.equal(event.status, "completed");
        assert.ok(event.usage.total_tokens > 0);
        break;
      }
    }
    assert.equal(transcript.trim(), HEARD);
  }),
);

judge("speech in by hand: clearAudio, commitAudio, generateResponse", () =>
  talking(async (client) => {
    await client.configure({ turn_detection: null, input_audio_transcription: { model: "whisper-1" } });
    await speak(client, Buffer.alloc(48_000));
    await client.clearAudio();
    await speak(client, question());
    const item = await client.commitAudio();
    await item.waitForCompletion();
    assert.equal(item.transcription.trim(), HEARD);
    assert.equal((await heard(await client.generateResponse())).words, ECHO);
  }),
);

judge("function call: round trip", () =>
  talking(async (client) => {
    await client.configure({ modalities: ["text"], tools: [WEATHER] });
    await say(client, "How is the weather in Rome?");
    const { calls } = await heard(await client.generateResponse());
    assert.equal(calls.length, 1);
    assert.equal(calls[0].functionName, "get_weather");
    assert.deepEqual(JSON.parse(calls[0].arguments), { city: "Rome" });
    await client.sendItem({ type: "function_call_output", call_id: calls[0].callId, output: '{"temperature": 21}' });
    const { words } = await heard(await client.generateResponse());
    assert.equal(words, "The result of get_weather is temperature 21.");
  }),
);

judge("barge-in: the answer is cut, and the next one comes", () =>
  talking(async (client) => {
    await client.configure({ turn_detection: { type: "server_vad" } });
    await say(client, "Tell me a story.");
    const story = await client.generateResponse();
    const cut = heard(story);
    await speak(client, question());
    for await (const event of client.events()) {
      if (event.type === "response") {
        assert.equal((await heard(event)).words, ECHO);
        break;
      }
    }
    assert.ok(STORY.startsWith((await cut).words));
    assert.equal(story.status, "cancelled");
  }),
);

judge("cancel: the answer ends where it is", () =>
  talking(async (client) => {
    await client.configure({ modalities: ["text"] });
    await say(client, "Tell me a story.");
    const story = await client.generateResponse();
    await story.cancel();
    assert.equal(story.status, "cancelled");
    assert.deepEqual(story.statusDetails, { type: "cancelled", reason: "client_cancelled" });
  }),
);

judge("items: removed", () =>
  talking(async (client) => {
    const item = await say(client, "Forget it.");
    await client.removeItem(item.id);
  }),
);

judge("errors: its RTError, with the service's code", async () => {
  const client = connect();
  await client.init();
  await assert.rejects(client.configure({ temperature: 9 }), (error) => {
    assert.ok(error instanceof RTError);
    assert.equal(error.code, "decimal_above_max_value");
    assert.equal(error.param, "session.temperature");
    return true;
  });
  await client.close();
});

judge("low level client: every event is of a type that it knows", async () => {
  const client = new LowLevelRTClient(ADDRESS, { key: KEY }, { deployment: DEPLOYMENT });
  await client.send({ type: "conversation.item.create", item: { ...TEXT, content: [{ type: "input_text", text: "Hi." }] } });
  await client.send({ type: "response.create" });
  const kinds = [];
  for await (const message of client.messages()) {
    kinds.push(message.type);
    if (message.type === "response.done") break;
  }
  assert.deepEqual(kinds.slice(0, 4), [
    "session.created",
    "conversation.item.created",
    "response.created",
    "rate_limits.updated",
  ]);
  await client.close();
});

judge("golden frames of 2024: all that it knows, none at which it closes", async () => {
  const early = frames().filter(({ profile }) => profile.startsWith("azure-2024"));
  const sent = early.map(({ frame }) => frame).filter(({ type }) => type !== "conversation.created");
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  server.on("connection", (socket) => {
    for (const frame of sent) socket.send(JSON.stringify(frame));
    socket.close(1000);
  });
  await once(server, "listening");
  const address = new URL(`ws://127.0.0.1:${server.address().port}`);
  const client = new LowLevelRTClient(address, { key: KEY }, { deployment: DEPLOYMENT });
  const got = [];
  for await (const message of client.messages()) got.push(message);
  server.close();
  assert.deepEqual(got, sent);
  return `${sent.length} frames`;
});

await main();
