"""Engines behind HTTP servers that speak the OpenAI API: Ollama, vLLM, llama.cpp, LM Studio, Azure OpenAI, OpenAI,
speaches and others (``docs/how-to/openai-compatible.md``).

``language_model`` and ``speech_model`` use ``/chat/completions``, ``transcriber`` ``/audio/transcriptions``,
``synthesizer`` ``/audio/speech``. What they have in common, connections, deadlines, retries and the naming of
faults, is in ``upstream``.

Laws
----
1. A request is tried again only while nothing of its answer was given out, and only within its deadline.
2. Closing a generator closes the stream of its answer, so that the server stops its work.
3. What an upstream says in an error reaches nobody: it may quote keys, prompts and speech. Its status does, and its
   code where that is a mere name.
4. ``httpx`` is imported when an engine is made.
"""
