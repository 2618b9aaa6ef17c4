"""Make it so: the pool that runs workers and the loop that compares desired with observed."""
