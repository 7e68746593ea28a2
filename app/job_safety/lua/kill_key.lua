-- Change the kill switch's key if it still says what was read of it.
-- A script because a person may set it at the same moment, and what a person sets must stand.
-- KEYS[1] string kill switch
-- ARGV[1] "1" if it was there, else "0"   ARGV[2] what it said
-- ARGV[3] "1" to set it, "0" to delete it   ARGV[4] what it shall say; an expiry that it has is kept
-- Returns 1 if it was changed, 0 if it says something else by now.
local now = redis.call('GET', KEYS[1])
if (now and '1' or '0') ~= ARGV[1] or (now and now ~= ARGV[2]) then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[4], 'KEEPTTL')
end
return 1
