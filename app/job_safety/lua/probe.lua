-- Write a key that nobody reads and tell the time: proof that scripts run and writes are taken.
-- KEYS[1] string, gone by itself   ARGV[1] its TTL in ms
-- Returns {seconds, microseconds} of the server's clock.
-- A script, because the guard is one: a server that runs this can guard.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return redis.call('TIME')
