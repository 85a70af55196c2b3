"""The actors: agents, the GPU, the store, and the doors that lead to them."""
