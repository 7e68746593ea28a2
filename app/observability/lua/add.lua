-- Add what one process has counted, once: a batch whose answer was lost is sent again and changes nothing.
-- A script because "was this batch taken?" and the adding must be one step; and because nothing else bounds the hashes.
-- KEYS[1] string marker of the batch, gone after 10 min
-- KEYS[2] hash series -> count   KEYS[3] hash event -> count   KEYS[4] hash duty -> time of its last run in ms
-- KEYS[5] hash series -> count within the minute of the batch
-- ARGV[1] the most fields that a hash of counts may have   ARGV[2] TTL of the minute in s
-- ARGV[3…] triples: number of the key in KEYS, field, amount (KEYS[4]: the time itself)
-- Returns how many fields were refused because their hash is full; -1 if the batch was taken before.
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', 600) then return -1 end
local refused = 0
for i = 3, #ARGV, 3 do
  local key, field = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  if key == KEYS[4] then
    redis.call('HSET', key, field, ARGV[i + 2])
  elseif redis.call('HLEN', key) < tonumber(ARGV[1]) or redis.call('HEXISTS', key, field) == 1 then
    redis.call('HINCRBY', key, field, ARGV[i + 2])
  else
    refused = refused + 1
  end
end
redis.call('EXPIRE', KEYS[5], ARGV[2])
return refused
