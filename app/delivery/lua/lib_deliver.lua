-- deliver(k, a): hand jobs to one RQ queue, each at most once while it is already waiting there or being worked on.
-- KEYS[k] set rq:queues   [k+1] list rq:queue:{name}   [k+2] zset rq:finished:{name}   [k+3] zset rq:failed:{name}
-- KEYS[k+4] string claim: whose queues these are (claim.lua)   KEYS[k+5…] hash rq:job:{id}, one per job
-- ARGV[a] "force" pushes even what is said to be waiting (the sweeper has seen that it is not); "front" does so too, to
--         the head of the queue (a dead worker's job has waited before); else ""
-- ARGV[a+1] who we are   ARGV[a+2] number of jobs
-- ARGV[a+3] number of values that all jobs share, and field, value, …; then per job: its data, description, asks or ""
-- Returns the number of jobs pushed, or the name of another whose queues these are; and where the next KEYS, ARGV are.
local function deliver(k, a)
  local how, jobs, shared, new = ARGV[a], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), {}
  local fields, at = {unpack(ARGV, a + 4, a + 3 + shared)}, a + 4 + shared
  local owner = redis.call('GET', KEYS[k + 4])
  local foreign = owner and owner ~= ARGV[a + 1]
  for i = k + 5, k + 4 + jobs do
    local status = redis.call('HGET', KEYS[i], 'status')
    if not foreign and (how ~= '' or (status ~= 'queued' and status ~= 'started')) then
      if status then redis.call('DEL', KEYS[i]) end
      redis.call('HSET', KEYS[i], 'data', ARGV[at], 'description', ARGV[at + 1], 'asks', ARGV[at + 2], unpack(fields))
      new[#new + 1] = string.sub(KEYS[i], #'rq:job:' + 1)
    end
    at = at + 3
  end
  if #new > 0 then
    for _, past in ipairs({KEYS[k + 2], KEYS[k + 3]}) do redis.call('ZREM', past, unpack(new)) end
    redis.call(how == 'front' and 'LPUSH' or 'RPUSH', KEYS[k + 1], unpack(new))
    redis.call('SADD', KEYS[k], KEYS[k + 1])
  end
  return foreign and owner or #new, k + 5 + jobs, at
end
