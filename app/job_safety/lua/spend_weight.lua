-- Ask to send a question to the exchange, and count its weight.
-- A script because the look at pause and limits and the count must be one step for everybody on this address.
-- Uses lib_clock lib_rate lib_rate_gate lib_rate_seen
-- KEYS[1…3] see lib_rate   KEYS[4] string pause of the address: closed as long as it exists; its value says why
-- ARGV[1] see lib_rate   ARGV[2] what the last answer's headers said, see lib_rate_seen
-- Returns {"spent", what would have blocked or ""} | {"blocked", why, ms left or -1}
local now = now_ms()
local paused = redis.call('PTTL', KEYS[4])
if paused ~= -2 then return {'blocked', 'pause:' .. redis.call('GET', KEYS[4]), paused} end
local rate = rate_of(1, ARGV[1])
if not rate then return {'spent', ''} end
rate_seen(rate, now, ARGV[2])
local full = rate_gate(rate, now)
if full and rate.mode == 'enforce' then return {'blocked', full.why, full.ms} end
for _, limit in ipairs(rate.limits) do
  if rate.need[limit.kind] > 0 then rate_add(limit, now, rate.need[limit.kind]) end
end
return {'spent', full and full.why or ''}
