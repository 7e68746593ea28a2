-- What the kill switch's key says about one kind of effect. A word that is not understood means halt.
-- key: string, as people set it   kind: open | reduce | cancel | book (book: no kill switch stops our own database)
-- Returns nil if the kind may go on, otherwise the state that stops it.
local function killed(key, kind)
  if kind == 'book' then return nil end
  local value = redis.call('GET', key)
  if not value then return nil end
  local allowed = {run = 'open reduce cancel', reduce_only = 'reduce cancel', cancel_only = 'cancel', halt = ''}
  local words = {['false'] = 'run', ['0'] = 'run', no = 'run', run = 'run', reduce_only = 'reduce_only',
                 cancel_only = 'cancel_only'}
  local state = words[string.lower(value)] or 'halt'
  if not string.find(allowed[state], kind, 1, true) then return state end
  return nil
end
