-- Close a gate for everybody until a time; a pause is never shortened.
-- A script because the comparison and the write must be one step: two workers may hear of two bans at once.
-- KEYS[1] string pause; its value says why
-- ARGV[1] why   ARGV[2] for how long, in ms
-- Returns the ms that the gate now stays closed; -1 if a person closed it without an end.
local left = redis.call('PTTL', KEYS[1])
if left == -1 or left >= tonumber(ARGV[2]) then return left end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tonumber(ARGV[2])
