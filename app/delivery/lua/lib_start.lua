-- start(list, a, tally): take the next job off a list, and note in RQ's books that this worker has begun it.
-- list: rq:queue:{name}, or its intermediate list. The keys of the job follow from the id that is taken, as in RQ itself.
-- KEYS[1] hash rq:worker:{name}   KEYS[2] zset rq:wip:{queue}
-- ARGV[a] now as RQ writes it   [a+1] now in seconds   [a+2] the worker's name   [a+3] a new execution id
-- ARGV[a+4] until when RQ's tools may think it alive, in seconds from now   [a+5] TTL of the worker's hash in seconds
-- tally: more fields and values for the worker's hash, which is written once, or nil
-- Returns id, data, asks; or false: nothing waits. A job that was deleted while it waited is passed over.
local function start(list, a, tally)
  local id, data, asks
  repeat
    id = redis.call('LPOP', list)
    if not id then return false end
    data, asks = unpack(redis.call('HMGET', 'rq:job:' .. id, 'data', 'asks'))
  until data
  local iso, now, worker, execution, alive = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 4])
  local name = id .. ':' .. execution
  redis.call('HSET', 'rq:job:' .. id, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
  redis.call('PERSIST', 'rq:job:' .. id)
  redis.call('HSET', 'rq:execution:' .. name, 'id', execution, 'created_at', now, 'last_heartbeat', now,
             'worker_name', worker)
  redis.call('EXPIRE', 'rq:execution:' .. name, alive)
  redis.call('ZADD', 'rq:executions:' .. id, now + alive + 60, execution)
  redis.call('EXPIRE', 'rq:executions:' .. id, alive + 60)
  redis.call('ZADD', KEYS[2], now + alive, name)
  redis.call('HSET', KEYS[1], 'state', 'busy', 'current_job', id, 'execution', execution,
             'last_heartbeat', iso, unpack(tally or {}))
  redis.call('EXPIRE', KEYS[1], ARGV[a + 5])
  return id, data, asks
end
