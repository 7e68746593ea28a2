-- Put the job that a worker has begun, and neither ended nor begun to fail, back to the head of its queue.
-- A script because the job must never be in neither place.
-- Uses lib_forget
-- A lease that was taken with its beginning goes back too, or the next worker would find it held by nobody.
-- KEYS[1], KEYS[2] as lib_start says   KEYS[3] list rq:queue:{name}
-- ARGV[1] what stands before a key in the name of its guard   ARGV[2] how the leases of this worker begin
-- Returns 1, or 0: this worker has begun nothing.
local id, execution = unpack(redis.call('HMGET', KEYS[1], 'current_job', 'execution'))
if not id then return 0 end
forget(id, execution or '')
redis.call('HDEL', KEYS[1], 'current_job', 'execution')
redis.call('HSET', KEYS[1], 'state', 'idle')
if redis.call('EXISTS', 'rq:job:' .. id) == 1 then
  local key = string.match(redis.call('HGET', 'rq:job:' .. id, 'asks') or '', '^%S+ %S+ (.*)$')
  local guard = key and redis.call('GET', ARGV[1] .. key)
  if guard and string.sub(guard, 1, #ARGV[2]) == ARGV[2] then redis.call('DEL', ARGV[1] .. key) end
  redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
  redis.call('LPUSH', KEYS[3], id)
end
return 1
