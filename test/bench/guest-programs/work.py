"""Plain Python of fixed work: dictionaries, strings, lists, method calls. Prints a few sums."""

import sys


class Account:
    def __init__(self, name):
        self.name = name
        self.balance = 0
        self.entries = []

    def post(self, amount):
        self.balance = (self.balance + amount) % 1000003
        if amount % 97 == 0:
            self.entries.append(amount)
        return self.balance


class Checked(Account):
    def post(self, amount):
        return super().post(amount ^ 5) if amount & 1 else super().post(amount)


def numbers(count, seed=42):
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        yield seed >> 8


def words(count):
    letters = "abcdefghijklmnopqrstuvwxyz"
    seen = {}
    for n in numbers(count):
        word = letters[n % 26] + letters[n // 26 % 26] + letters[n // 676 % 7]
        seen[word] = seen.get(word, 0) + 1
    line = " ".join(f"{word}={seen[word]}" for word in sorted(seen, key=lambda word: (-seen[word], word)))
    return len(seen), sum(len(part) * int(part.split("=")[1]) for part in line.split(" "))


def accounts(count):
    book = [Checked(str(n)) if n % 3 == 0 else Account(str(n)) for n in range(50)]
    total = 0
    for n in numbers(count, 7):
        total = (total + book[n % 50].post(n)) & 0xFFFFFFFF
    return total, sum(len(account.entries) for account in book)


def sieve(limit):
    flags = bytearray([1]) * limit
    for n in range(2, int(limit**0.5) + 1):
        if flags[n]:
            flags[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return sum(flags) - 2


def queens(size, row=0, columns=0, left=0, right=0):
    if row == size:
        return 1
    found = 0
    free = ~(columns | left | right) & ((1 << size) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(size, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


scale = int(sys.argv[1])
print(words(60000 * scale), accounts(60000 * scale), sieve(200000 * scale), [queens(8) for _ in range(scale)][-1])
