-- ask(k, a, id, data, asks): ask for the admission of a job that was just begun, if its effect is asked for here.
-- What it names is a word of the queue's: whoever uses the answer compares it with the journal first.
-- Uses app.job_safety:lib_admit
-- id, data, asks: as lib_start returns them
-- KEYS[k…] per kind of effect what lib_admit says, from the kill switch on
-- ARGV[a] token   [a+1] lease in ms   [a+2] what stands before a key in the name of its guard   [a+3] number of kinds
-- then per kind: "kind venue", number of its keys, number of pauses, circuit, request
-- Returns {id, data}, and what was asked for, "kind venue key", and the answer behind it if there is one; or false.
local function ask(k, a, id, data, asks)
  local what, kind, key = string.match(asks or '', '^((%S+) %S+) (.*)$')
  if not what then return id and {id, data} end
  local token, lease, prefix, at = ARGV[a], ARGV[a + 1], ARGV[a + 2], a + 4
  for _ = 1, tonumber(ARGV[a + 3]) do
    if ARGV[at] == what then
      local pauses = tonumber(ARGV[at + 2])
      -- A gate that cannot be read must not end the worker: it is asked again by the job, which knows what that means.
      local ok, answer = pcall(admit, prefix .. key, k, token, lease, kind, '0', pauses, ARGV[at + 3], ARGV[at + 4])
      return ok and {id, data, asks, answer} or {id, data}
    end
    k, at = k + ARGV[at + 1], at + 5
  end
  return {id, data}
end
