-- Ask to work on one effect: kill switch, pauses and guard in one step, so that no decision rests on two moments.
-- KEYS[1] string guard: "L:{token}" with a TTL while leased, "D:{hint}" once done
-- KEYS[2] string kill switch, as people set it
-- KEYS[3…] strings, a pause each: closed as long as it exists; its value says why
-- ARGV[1] token of this try   ARGV[2] lease in ms
-- ARGV[3] what kind of effect: open | reduce | cancel | book (book: no gate stops work in our own database)
-- ARGV[4] "1" to take over a guard that says done although the journal says otherwise, else "0"
-- Returns {"admitted"} | {"done", hint} | {"held", token of the owner, ms left}
--         | {"blocked", why, ms left or -1}
local guard = redis.call('GET', KEYS[1])
local mine = guard == 'L:' .. ARGV[1]
if guard and not mine then
  local body = string.sub(guard, 3)
  if string.sub(guard, 1, 2) == 'L:' then return {'held', body, redis.call('PTTL', KEYS[1])} end
  if ARGV[4] ~= '1' then return {'done', body} end
end
if ARGV[3] ~= 'book' then
  local allowed = {run = 'open reduce cancel', reduce_only = 'reduce cancel', cancel_only = 'cancel', halt = ''}
  local words = {['false'] = 'run', ['0'] = 'run', no = 'run', run = 'run', reduce_only = 'reduce_only',
                 cancel_only = 'cancel_only'}
  local kill = redis.call('GET', KEYS[2])
  local state = kill and (words[string.lower(kill)] or 'halt') or 'run'
  if not string.find(allowed[state], ARGV[3], 1, true) then return {'blocked', 'kill_switch:' .. state, -1} end
  for i = 3, #KEYS do
    local left = redis.call('PTTL', KEYS[i])
    if left ~= -2 then return {'blocked', 'pause:' .. redis.call('GET', KEYS[i]), left} end
  end
end
redis.call('SET', KEYS[1], 'L:' .. ARGV[1], 'PX', ARGV[2])
return {'admitted'}
