"""The runtime: an actor kernel that knows no LLM, pure policies, the model machinery and the disk."""
