-- Hand jobs to one RQ queue, each at most once while it is already waiting there or being worked on.
-- A script because "is it there?" and "push it" must be one step, and a batch one round trip.
-- KEYS[1] set   rq:queues
-- KEYS[2] list  rq:queue:{name}
-- KEYS[3] zset  rq:finished:{name}     KEYS[4] zset  rq:failed:{name}
-- KEYS[5] string claim: whose queues these are (claim.lua)     KEYS[6…] hash rq:job:{id}, one per job
-- ARGV[1] "force" pushes even what is said to be waiting (the sweeper has seen that it is not); "front" does so too,
--         to the head of the queue (a dead worker's job has waited before); else ""
-- ARGV[2] who we are
-- ARGV[3…] per job: id, number of arguments that follow, then field, value, …
-- Returns the number of jobs pushed, or the name of another whose queues these are.
local owner = redis.call('GET', KEYS[5])
if owner and owner ~= ARGV[2] then return owner end
local pushed, at = 0, 3
for i = 6, #KEYS do
  local id, n = ARGV[at], tonumber(ARGV[at + 1])
  local status = redis.call('HGET', KEYS[i], 'status')
  if ARGV[1] ~= '' or (status ~= 'queued' and status ~= 'started') then
    redis.call('DEL', KEYS[i])
    redis.call('HSET', KEYS[i], unpack(ARGV, at + 2, at + 1 + n))
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZREM', KEYS[4], id)
    redis.call(ARGV[1] == 'front' and 'LPUSH' or 'RPUSH', KEYS[2], id)
    pushed = pushed + 1
  end
  at = at + 2 + n
end
if pushed > 0 then redis.call('SADD', KEYS[1], KEYS[2]) end
return pushed
