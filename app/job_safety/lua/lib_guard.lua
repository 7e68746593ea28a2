-- settle_guard(k, a): end or prolong a lease, if it is still ours, and tell the circuit and the limits what the call has
-- shown.
-- Uses lib_settled
-- KEYS[k] string guard: "L:{token}" with a TTL while leased, "D:{hint}" once done
-- then four of the circuit (lib_circuit) and three of the limits (lib_rate), if told of
-- ARGV[a] token, or the prefix of a dead owner's tokens with ARGV[a+1] = "bury"
-- ARGV[a+1] renew | release | done | bury
-- ARGV[a+2] renew: lease in ms; done: TTL of the result in seconds   ARGV[a+3] done: hint
-- ARGV[a+4…a+8] what is told of the call, see lib_settled; all empty if nothing is
-- Returns 1 if it happened, 0 if the guard is not ours (any more).
local function settle_guard(k, a)
  local guard, token, what = redis.call('GET', KEYS[k]), ARGV[a], ARGV[a + 1]
  call_settled(k + 1, token, what, ARGV[a + 4], ARGV[a + 5], ARGV[a + 6], ARGV[a + 7], ARGV[a + 8])
  if what == 'done' and not guard then
    redis.call('SET', KEYS[k], 'D:' .. ARGV[a + 3], 'EX', ARGV[a + 2])
    return 1
  end
  if what == 'bury' then
    local prefix = 'L:' .. token
    if not guard or string.sub(guard, 1, #prefix) ~= prefix then return 0 end
    return redis.call('DEL', KEYS[k])
  end
  if guard ~= 'L:' .. token then return 0 end
  if what == 'renew' then return redis.call('PEXPIRE', KEYS[k], ARGV[a + 2]) end
  if what == 'release' then return redis.call('DEL', KEYS[k]) end
  redis.call('SET', KEYS[k], 'D:' .. ARGV[a + 3], 'EX', ARGV[a + 2])
  return 1
end
