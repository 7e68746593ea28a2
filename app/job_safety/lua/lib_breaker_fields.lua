-- Read the stored state of a circuit: numbers as numbers, and what was never written as for a new one.
--   state: closed | open | half_open     generation: grows with every change; older results are ignored
--   changed_at, opened_at, until: server ms (until: end of open)     streak: openings in a row without a close between
--   consecutive: weight of failures in a row     successes: of probes in this half-open     why: the last change
--   changes: so many so far
--   override, override_by, override_reason, override_until: a person's, if there is one
local function breaker_fields(key)
  local fields = {
    state = 'closed', generation = 0, changed_at = 0, opened_at = 0, ['until'] = 0, streak = 0, consecutive = 0,
    successes = 0, changes = 0, why = '', override = '', override_by = '', override_reason = '', override_until = 0,
  }
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local is_number = type(fields[flat[i]]) == 'number'
    fields[flat[i]] = is_number and tonumber(flat[i + 1]) or flat[i + 1]
  end
  return fields
end
