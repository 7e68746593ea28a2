-- Move a circuit to a state under a new generation, and write it down for the journal in the same step.
-- The stream keeps the entry until a drainer has it in the journal: a change cannot happen without a trace. With nobody
-- to drain it the newest `kept` stay; every change of a circuit has the next number, so that the journal sees the gap.
-- A move that no person made ends a person's override. `to` may be the state it is in (an override, or its end).
local function breaker_move(circuit, fields, now, action, to, why, by)
  local from = fields.state
  if action ~= 'override_expired' then
    fields.generation, fields.changed_at, fields.successes, fields.consecutive = fields.generation + 1, now, 0, 0
    redis.call('DEL', circuit.window, circuit.permits)
  end
  if to == 'closed' then fields.streak = 0 end
  if action == 'circuit_open' then
    fields.opened_at = now
    fields['until'] = now + math.min(circuit.open_ms * 2 ^ math.min(fields.streak, 30), circuit.open_max_ms)
    fields.streak = fields.streak + 1
  elseif action == 'override' and to == 'open' then
    fields.opened_at, fields['until'] = from == 'open' and fields.opened_at or now, fields.override_until
  end
  if action ~= 'override' then
    fields.override, fields.override_by, fields.override_reason, fields.override_until = '', '', '', 0
  end
  fields.state, fields.why, fields.changes = to, why, fields.changes + 1
  local flat = {}
  for name, value in pairs(fields) do flat[#flat + 1] = name; flat[#flat + 1] = value end
  redis.call('HSET', circuit.state, unpack(flat))
  redis.call('XADD', circuit.changes, 'MAXLEN', circuit.kept, '*', 'job_type', circuit.job, 'action', action,
             'from', from, 'to', to, 'generation', fields.generation, 'why', why, 'by', by, 'at_ms', now, 'until_ms',
             to == 'open' and fields['until'] or fields.override_until, 'config_hash', circuit.hash,
             'number', fields.changes)
end
