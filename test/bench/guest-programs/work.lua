-- Plain Lua of fixed work: tables, strings, method calls, closures. Prints a few sums.
local scale = math.tointeger(arg[1])

local function numbers(seed)
  return function()
    seed = (seed * 1103515245 + 12345) & 0x7fffffff
    return seed >> 8
  end
end

local Account = {}
Account.__index = Account
function Account.new() return setmetatable({ balance = 0, entries = {} }, Account) end
function Account:post(amount)
  self.balance = (self.balance + amount) % 1000003
  if amount % 97 == 0 then self.entries[#self.entries + 1] = amount end
  return self.balance
end

local function words(count)
  local draw, seen = numbers(42), {}
  for _ = 1, count do
    local n = draw()
    local word = string.char(97 + n % 26, 97 + n // 26 % 26, 97 + n // 676 % 7)
    seen[word] = (seen[word] or 0) + 1
  end
  local list = {}
  for word, times in pairs(seen) do list[#list + 1] = word .. '=' .. times end
  table.sort(list)
  local sum = 0
  for times in table.concat(list, ' '):gmatch('=(%d+)') do sum = sum + math.tointeger(times) end
  return #list, sum
end

local function accounts(count)
  local draw, book, total = numbers(7), {}, 0
  for n = 0, 49 do book[n] = Account.new() end
  for _ = 1, count do
    local n = draw()
    total = (total + book[n % 50]:post(n)) & 0xffffffff
  end
  return total
end

local function sieve(limit)
  local composite, count = {}, 0
  for n = 2, limit do
    if not composite[n] then
      count = count + 1
      for m = n * n, limit, n do composite[m] = true end
    end
  end
  return count
end

local function queens(size, row, columns, left, right)
  if row == size then return 1 end
  local found, free = 0, ~(columns | left | right) & ((1 << size) - 1)
  while free ~= 0 do
    local bit = free & -free
    free = free ~ bit
    found = found + queens(size, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1)
  end
  return found
end

local found
for _ = 1, scale do found = queens(8, 0, 0, 0, 0) end
local kinds, sum = words(60000 * scale)
print(kinds, sum, accounts(60000 * scale), sieve(60000 * scale), found)
