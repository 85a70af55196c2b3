"""The runtime: an actor kernel that knows no LLM, pure policies, model machinery and disk."""
