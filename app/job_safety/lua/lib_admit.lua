-- admit(guard, k, token, lease, kind, distrust, pauses, policy, request): ask to work on one effect.
-- All gates and the guard in one step, so that no decision rests on two moments.
-- Uses lib_kill lib_gates
-- guard: string key, "L:{token}" with a TTL while leased, "D:{hint}" once done
-- KEYS[k] kill switch   KEYS[k+1…] `pauses` strings: closed as long as it exists; its value says why
-- then four of the circuit (lib_circuit) and three of the limits (lib_rate), if `policy` or `request` need them
-- token: names this try   lease: in ms   kind: what kind of effect, open | reduce | cancel | book
-- distrust: "1" to take over a guard that says done although the journal says otherwise, else "0"
-- policy: circuit, see lib_circuit   request: see lib_rate
-- Returns {"admitted", generation, 1 if it holds a probe's permit, why an observing gate would have blocked, or ""}
--         | {"done", hint} | {"held", token of the owner, ms left} | {"blocked", why, ms left or -1}
local function admit(guard, k, token, lease, kind, distrust, pauses, policy, request)
  local value = redis.call('GET', guard)
  if value and value ~= 'L:' .. token then
    local is_leased, body = string.sub(value, 1, 2) == 'L:', string.sub(value, 3)
    if is_leased then return {'held', body, redis.call('PTTL', guard)} end
    if distrust ~= '1' then return {'done', body} end
  end
  local state = killed(KEYS[k], kind)
  if state then return {'blocked', 'kill_switch:' .. state, -1} end
  for i = k + 1, k + pauses do
    local left = redis.call('PTTL', KEYS[i])
    if left ~= -2 then return {'blocked', 'pause:' .. redis.call('GET', KEYS[i]), left} end
  end
  local would, pass = gates_pass(k + 1 + pauses, token, policy, request)
  if would and would.blocks then return {'blocked', would.why, would.ms} end
  redis.call('SET', guard, 'L:' .. token, 'PX', lease)
  return {'admitted', pass.generation, pass.permit and 1 or 0, would and would.why or ''}
end
