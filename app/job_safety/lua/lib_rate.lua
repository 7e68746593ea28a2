-- Name the limits that one request counts against.
-- first: index in KEYS of three: string limits as the exchange publishes them, hash used per address, hash per account
-- request: "mode percent weight orders" and then the limits that hold until the exchange's own are known, or ""
--   mode: off | observe | enforce   percent: how much of each limit this kind of request may use up
--   limits: triples "weight|orders|raw  window in ms  most"
-- Returns {mode, percent, limits = list of {kind, key, window, most, need}}, or nil if there is nothing to count.
local function rate_of(first, request)
  local word = {}
  for one in string.gmatch(request or '', '%S+') do word[#word + 1] = one end
  if #word == 0 or word[1] == 'off' then return nil end
  local need = {weight = tonumber(word[3]), orders = tonumber(word[4]), raw = 1}
  local limits, told = {}, redis.call('GET', KEYS[first]) or table.concat(word, ' ', 5)
  for kind, window, most in string.gmatch(told, '(%a+) (%d+) (%d+)') do
    local key = KEYS[kind == 'orders' and first + 2 or first + 1]
    limits[#limits + 1] = {kind = kind, key = key, window = tonumber(window), most = tonumber(most), need = need[kind]}
  end
  return {mode = word[1], percent = tonumber(word[2]), limits = limits}
end
