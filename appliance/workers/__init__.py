"""Long-lived loops, one per spec: publishers and subscribers. They know nothing of the pool that runs them."""
