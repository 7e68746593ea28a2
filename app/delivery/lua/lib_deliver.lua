-- deliver(k, a): hand jobs to one RQ queue, each at most once while it is already waiting there or being worked on.
-- KEYS[k] set rq:queues   [k+1] list rq:queue:{name}   [k+2] zset rq:finished:{name}   [k+3] zset rq:failed:{name}
-- KEYS[k+4] string claim: whose queues these are (claim.lua)   KEYS[k+5…] hash rq:job:{id}, one per job
-- ARGV[a] "force" pushes even what is said to be waiting (the sweeper has seen that it is not); "front" does so too, to
--         the head of the queue (a dead worker's job has waited before); else ""
-- ARGV[a+1] who we are   ARGV[a+2] number of jobs
-- ARGV[a+3] number of values that all jobs share, and field, value, …; then per job: id, and the same of its own
-- Returns the number of jobs pushed, or the name of another whose queues these are; and where the next KEYS, ARGV are.
local function deliver(k, a)
  local how, jobs, shared, pushed = ARGV[a], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), 0
  local fields, at = {unpack(ARGV, a + 4, a + 3 + shared)}, a + 4 + shared
  local owner = redis.call('GET', KEYS[k + 4])
  local foreign = owner and owner ~= ARGV[a + 1]
  for i = k + 5, k + 4 + jobs do
    local id, n = ARGV[at], tonumber(ARGV[at + 1])
    local status = redis.call('HGET', KEYS[i], 'status')
    if not foreign and (how ~= '' or (status ~= 'queued' and status ~= 'started')) then
      for j = 1, n do fields[shared + j] = ARGV[at + 1 + j] end
      redis.call('DEL', KEYS[i])
      redis.call('HSET', KEYS[i], unpack(fields, 1, shared + n))
      redis.call('ZREM', KEYS[k + 2], id)
      redis.call('ZREM', KEYS[k + 3], id)
      redis.call(how == 'front' and 'LPUSH' or 'RPUSH', KEYS[k + 1], id)
      pushed = pushed + 1
    end
    at = at + 2 + n
  end
  if pushed > 0 then redis.call('SADD', KEYS[k], KEYS[k + 1]) end
  return foreign and owner or pushed, k + 5 + jobs, at
end
