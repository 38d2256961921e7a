"""Frame store, sum tree, rate limiter, replay shard and the client over all shards."""
