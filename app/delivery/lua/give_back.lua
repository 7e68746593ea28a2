-- Put the job that a worker has begun, and neither ended nor begun to fail, back to the head of its queue.
-- A script because the job must never be in neither place.
-- Uses lib_forget
-- KEYS[1], KEYS[2] as lib_start says   KEYS[3] list rq:queue:{name}
-- Returns 1, or 0: this worker has begun nothing.
local id, execution = unpack(redis.call('HMGET', KEYS[1], 'current_job', 'execution'))
if not id then return 0 end
forget(id, execution or '')
if redis.call('EXISTS', 'rq:job:' .. id) == 1 then
  redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
  redis.call('LPUSH', KEYS[3], id)
end
return 1
