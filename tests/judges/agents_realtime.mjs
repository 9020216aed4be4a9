// Judge: the npm package `@openai/agents-realtime`: realtime agents and their sessions, over its WebSocket transport.

import assert from "node:assert/strict";
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";
import {
  ECHO, HEARD, KEY, MODEL, PIXEL, PORT, STORY, checkSpeech, gaFrames, judge, main, question,
} from "./witness.mjs";

const OPENAI = `ws://127.0.0.1:${PORT}/v1/realtime?model=${MODEL}`;
const AZURE = `ws://127.0.0.1:${PORT}/openai/v1/realtime?model=${MODEL}`;
const SERVER_VAD = { audio: { input: { turnDetection: { type: "server_vad", interruptResponse: true } } } };
const SILENCE = Buffer.alloc(4 * 48_000); // As long as semantic VAD waits at most.

const getWeather = tool({
  name: "get_weather",
  description: "The weather of a place.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `It is 21 degrees in ${city}.`,
});
const AGENT = new RealtimeAgent({ name: "Helper", instructions: "You help.", tools: [getWeather] });

// A session of the framework, and everything that the server sent it.
class Talk {
  constructor(session) {
    this.session = session;
    this.raw = [];
    this.read = 0;
    this.audio = [];
    this.errors = [];
    this.wakes = new Set();
    session.transport.on("*", (event) => this.note(() => this.raw.push(event)));
    session.on("audio", (event) => this.note(() => this.audio.push(Buffer.from(event.data))));
    session.on("error", ({ error }) => this.note(() => this.errors.push(error)));
  }

  note(change) {
    change();
    for (const wake of this.wakes) wake();
  }

  // Resolves when the condition holds, rejects when the server tells of an error.
  async until(condition) {
    while (!condition()) {
      assert.deepEqual(this.errors, []);
      await new Promise((resolve) => {
        this.wakes.add(resolve);
        setTimeout(resolve, 50);
      });
    }
  }

  // The next event of this type that the server sent.
  async last(kind) {
    let found;
    await this.until(() => {
      while (!found && this.read < this.raw.length) {
        const event = this.raw[this.read++];
        if (event.type === kind) found = event;
      }
      return found;
    });
    return found;
  }

  // The session after an update that made it so. It sends two when it begins, one of tracing alone, in either order.
  async updated(condition) {
    const found = () => this.raw.find((event) => event.type === "session.updated" && condition(event.session));
    await this.until(found);
    return found().session;
  }

  speak(sound) {
    for (let at = 0; at < sound.length; at += 4800) {
      this.session.sendAudio(new Uint8Array(sound.subarray(at, at + 4800)).buffer);
    }
  }

  get words() {
    const deltas = this.raw.filter((event) => event.type === "response.output_audio_transcript.delta");
    return deltas.map((event) => event.delta).join("");
  }

  get sound() {
    return Buffer.concat(this.audio);
  }
}

async function talking(check, { agent = AGENT, config = SERVER_VAD, url = OPENAI, apiKey = KEY } = {}) {
  const transport = new OpenAIRealtimeWebSocket({ url });
  const session = new RealtimeSession(agent, { transport, model: MODEL, config, tracingDisabled: true });
  const talk = new Talk(session);
  await session.connect({ apiKey, url });
  try {
    return await check(talk);
  } finally {
    session.close();
  }
}

// ----------------------------------------------------------------------------------------------------- cases

judge("connect: Bearer; session.update with everything that an agent sets", () =>
  talking(async (talk) => {
    const session = await talk.updated(({ instructions }) => instructions === "You help.");
    assert.equal(session.audio.input.transcription.model, "gpt-4o-mini-transcribe");
    assert.equal(session.audio.input.turn_detection.type, "server_vad");
    assert.deepEqual(session.tools.map((one) => one.name), ["get_weather"]);
  }),
);

judge("connect: Azure's address, key as Bearer", () =>
  talking(async (talk) => assert.equal((await talk.last("session.updated")).session.type, "realtime"), { url: AZURE }),
);

judge("connect: with a client secret, as browsers do; the session begins as it was asked to", async () => {
  const session = { type: "realtime", model: MODEL, instructions: "Of the secret." };
  const answer = await fetch(`http://127.0.0.1:${PORT}/v1/realtime/client_secrets`, {
    method: "POST",
    headers: { Authorization: `Bearer ${KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({ session }),
  });
  const { value } = await answer.json();
  assert.match(value, /^ek_/);
  await talking(
    async (talk) => {
      assert.equal((await talk.last("session.created")).session.instructions, "Of the secret.");
      talk.session.sendMessage("Good morning.");
      await talk.until(() => talk.words === "You said: Good morning.");
    },
    { apiKey: value },
  );
});

judge("refused: a wrong key is an error, with the service's code", async () => {
  const found = await new Promise((resolve) => {
    talking((talk) => talk.until(() => talk.errors.length).then(() => resolve(talk.errors[0])), { apiKey: "wrong" });
  });
  assert.equal(found.error.code, "invalid_api_key");
});

judge("typed question, spoken answer, history", () =>
  talking(async (talk) => {
    talk.session.sendMessage("Good morning.");
    await talk.last("response.done");
    await talk.until(() => talk.session.history.at(-1)?.status === "completed");
    assert.deepEqual(
      talk.session.history.map((item) => [item.role, item.content[0].text ?? item.content[0].transcript]),
      [["user", "Good morning."], ["assistant", "You said: Good morning."]],
    );
    checkSpeech(talk.sound, 800);
  }),
);

judge("speech in: server VAD, transcript in the history, spoken answer", () =>
  talking(async (talk) => {
    talk.speak(question());
    await talk.last("response.done");
    await talk.until(() => talk.session.history[0]?.content[0].transcript?.trim() === HEARD);
    assert.equal(talk.words, ECHO);
    checkSpeech(talk.sound, 1500);
  }),
);

judge("speech in with the settings that it comes with: semantic VAD ends the turn, spoken answer", () =>
  talking(
    async (talk) => {
      await talk.updated(({ audio }) => audio.input.turn_detection.type === "semantic_vad");
      talk.speak(Buffer.concat([question(), SILENCE]));
      await talk.last("response.done");
      assert.equal(talk.words, ECHO);
    },
    { config: {} },
  ),
);

judge("function tool: called, and its result spoken", () =>
  talking(async (talk) => {
    talk.session.sendMessage("How is the weather in Rome?");
    await talk.until(() => talk.words.endsWith("It is 21 degrees in Rome."));
  }),
);

judge("function tool: called for both places at once, and once at a time where parallelToolCalls is off", async () => {
  for (const parallelToolCalls of [true, false]) {
    await talking(
      async (talk) => {
        await talk.updated((session) => session.parallel_tool_calls === parallelToolCalls);
        talk.session.sendMessage("How is the weather in Rome and Paris?");
        const { response } = await talk.last("response.done");
        const cities = response.output.map((call) => JSON.parse(call.arguments).city);
        assert.deepEqual(cities, parallelToolCalls ? ["Rome", "Paris"] : ["Rome"]);
        await talk.until(() => talk.words.includes(`It is 21 degrees in ${cities.at(-1)}.`));
      },
      { config: { ...SERVER_VAD, parallelToolCalls } },
    );
  }
});

judge("image: addImage, and the model is shown it", () =>
  talking(async (talk) => {
    talk.session.addImage(PIXEL);
    await talk.until(() => talk.words === "You said: a picture.");
  }),
);

judge("handoff: the other agent's instructions hold", () => {
  const other = new RealtimeAgent({ name: "Teller", instructions: 'Say "I am the teller."' });
  const desk = new RealtimeAgent({ name: "Desk", instructions: "You help.", handoffs: [other] });
  return talking(
    async (talk) => {
      talk.session.sendMessage("Please transfer me to the teller.");
      await talk.until(() => talk.session.currentAgent === other && talk.words);
      await talk.last("response.done");
      await talk.last("response.done");
      talk.session.sendMessage("Who are you?");
      await talk.until(() => talk.words.endsWith("I am the teller."));
    },
    { agent: desk },
  );
});

judge("barge-in: the user breaks in; what was not played is cut off, and the next answer comes", () =>
  talking(async (talk) => {
    let interrupted = false;
    talk.session.on("audio_interrupted", () => (interrupted = true));
    talk.session.sendMessage("Tell me a story.");
    await talk.until(() => talk.sound.length > 24_000);
    talk.speak(question());
    await talk.last("conversation.item.truncated");
    assert.ok(interrupted);
    await talk.until(() => talk.words.endsWith(ECHO));
  }),
);

judge("interrupt: the answer is cancelled and truncated", () =>
  talking(async (talk) => {
    talk.session.sendMessage("Tell me a story.");
    await talk.until(() => talk.sound.length > 24_000);
    talk.session.interrupt();
    const { response } = await talk.last("response.done");
    assert.deepEqual([response.status, response.status_details.reason], ["cancelled", "client_cancelled"]);
    assert.ok(STORY.startsWith(talk.words));
  }),
);

judge("errors: an error event with the service's code, and the session lives on", () =>
  talking(async (talk) => {
    await talk.last("session.updated");
    talk.session.transport.sendEvent({ type: "conversation.item.delete", item_id: "nobody" });
    await talk.last("error").catch(() => {});
    assert.equal(talk.errors.pop().error.code, "item_delete_invalid_item_id");
    talk.session.sendMessage("Still there?");
    await talk.until(() => talk.words === "You said: Still there?");
  }),
);

// ------------------------------------------------------------------------------------------------ all frames

// Events that its transport knows no more of than that they are events.
const IMAGE = "item with an input_image";
const GENERIC = new Set([
  "conversation.item.input_audio_transcription.failed",
  "input_audio_buffer.timeout_triggered",
  IMAGE,
]);

judge("golden frames, as its transport reads them", async () => {
  const socket = new EventTarget();
  Object.assign(socket, { send() {}, close() {} });
  const transport = new OpenAIRealtimeWebSocket({ createWebSocket: async () => socket, skipOpenEventListeners: true });
  const passed = new Set();
  const all = gaFrames();
  const types = new Set(all.map(({ frame }) => frame.type));
  let known;
  for (const type of types) transport.on(type, () => (known = true));
  await transport.connect({ apiKey: KEY, model: MODEL, initialSessionConfig: {} });
  const wrong = {};
  const generic = {};
  for (const { frame, script } of all) {
    const kind = frame.item?.content?.some(({ type }) => type === "input_image") ? IMAGE : frame.type;
    known = false;
    socket.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(frame) }));
    if (known) passed.add(frame);
    else if (GENERIC.has(kind)) generic[kind] = (generic[kind] ?? 0) + 1;
    else wrong[frame.type] ??= script;
  }
  assert.deepEqual(wrong, {});
  for (const type of GENERIC) assert.ok(generic[type], `not met: ${type}`);
  const told = Object.entries(generic).map(([type, count]) => `${count} x ${type} has no type of its own`);
  return [`${all.length} frames: ${passed.size} valid`, ...told].join("; ");
});

await main();
