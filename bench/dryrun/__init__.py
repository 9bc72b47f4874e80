"""Public start-up logs, foretold: each in its own vLLM, without its GPU and its weights."""
