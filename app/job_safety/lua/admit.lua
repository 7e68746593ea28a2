-- Ask to work on one effect: all gates and the guard in one step, so that no decision rests on two moments.
-- Uses lib_kill lib_gates
-- KEYS[1] string guard: "L:{token}" with a TTL while leased, "D:{hint}" once done    KEYS[2] string kill switch
-- KEYS[3…] ARGV[5] strings, a pause each: closed as long as it exists; its value says why
-- then four of the circuit (lib_circuit) and three of the limits (lib_rate), if ARGV[6] or ARGV[7] need them
-- ARGV[1] token of this try   ARGV[2] lease in ms   ARGV[3] what kind of effect: open | reduce | cancel | book
-- ARGV[4] "1" to take over a guard that says done although the journal says otherwise, else "0"
-- ARGV[5] number of pauses   ARGV[6] circuit, see lib_circuit   ARGV[7] request, see lib_rate
-- Returns {"admitted", generation, 1 if it holds a probe's permit, why an observing gate would have blocked, or ""}
--         | {"done", hint} | {"held", token of the owner, ms left} | {"blocked", why, ms left or -1}
local guard = redis.call('GET', KEYS[1])
if guard and guard ~= 'L:' .. ARGV[1] then
  local is_leased, body = string.sub(guard, 1, 2) == 'L:', string.sub(guard, 3)
  if is_leased then return {'held', body, redis.call('PTTL', KEYS[1])} end
  if ARGV[4] ~= '1' then return {'done', body} end
end
local state, pauses = killed(KEYS[2], ARGV[3]), tonumber(ARGV[5])
if state then return {'blocked', 'kill_switch:' .. state, -1} end
for i = 3, 2 + pauses do
  local left = redis.call('PTTL', KEYS[i])
  if left ~= -2 then return {'blocked', 'pause:' .. redis.call('GET', KEYS[i]), left} end
end
local would, pass = gates_pass(3 + pauses, ARGV[1], ARGV[6], ARGV[7])
if would and would.blocks then return {'blocked', would.why, would.ms} end
redis.call('SET', KEYS[1], 'L:' .. ARGV[1], 'PX', ARGV[2])
return {'admitted', pass.generation, pass.permit and 1 or 0, would and would.why or ''}
