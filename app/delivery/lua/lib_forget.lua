-- forget(id, execution): strike a run of a job from RQ's books. The worker's own hash is left to the caller.
-- KEYS[2] zset rq:wip:{queue}
local function forget(id, execution)
  redis.call('ZREM', KEYS[2], id .. ':' .. execution)
  redis.call('DEL', 'rq:execution:' .. id .. ':' .. execution)
  redis.call('ZREM', 'rq:executions:' .. id, execution)
end
