-- End or prolong a lease, if it is still ours, and tell the circuit and the limits what the call has shown.
-- A script because "is it ours?" and the change must be one step: an owner that was paused must not touch its successor's.
-- Uses lib_settled
-- KEYS[1] string guard   then four of the circuit (lib_circuit) and three of the limits (lib_rate), if told of
-- ARGV[1] token, or the prefix of a dead owner's tokens with ARGV[2] = "bury"
-- ARGV[2] renew | release | done | bury
-- ARGV[3] renew: lease in ms; done: TTL of the result in seconds   ARGV[4] done: hint
-- ARGV[5…9] what is told of the call, see lib_settled; may be left out
-- Returns 1 if it happened, 0 if the guard is not ours (any more).
local guard = redis.call('GET', KEYS[1])
call_settled(2, ARGV[1], ARGV[2], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9])
if ARGV[2] == 'done' and not guard then
  redis.call('SET', KEYS[1], 'D:' .. ARGV[4], 'EX', ARGV[3])
  return 1
end
if ARGV[2] == 'bury' then
  local prefix = 'L:' .. ARGV[1]
  if not guard or string.sub(guard, 1, #prefix) ~= prefix then return 0 end
  return redis.call('DEL', KEYS[1])
end
if guard ~= 'L:' .. ARGV[1] then return 0 end
if ARGV[2] == 'renew' then return redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
if ARGV[2] == 'release' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], 'D:' .. ARGV[4], 'EX', ARGV[3])
return 1
