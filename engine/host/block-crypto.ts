import * as nodeCrypto from 'node:crypto';
import { BlockError } from '../block/errors.ts';
import type { Crypto } from '../block/file.ts';

function guard<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new BlockError('unsupported', `encryption: ${(error as Error).message}`, error);
  }
}

/** OpenSSL's ciphers through Node. Padding is off: data is whole blocks. */
export const crypto: Crypto = {
  cipher: (name, key, iv, data) =>
    guard(() => {
      const cipher = nodeCrypto.createCipheriv(name, key, iv);
      cipher.setAutoPadding(false);
      return cipher.update(data);
    }),
  decipher: (name, key, iv, data) =>
    guard(() => {
      const cipher = nodeCrypto.createDecipheriv(name, key, iv);
      cipher.setAutoPadding(false);
      return cipher.update(data);
    }),
  hash: (name, data) => guard(() => nodeCrypto.createHash(name).update(data).digest()),
  pbkdf2: (password, salt, iterations, length, hash) =>
    guard(() => nodeCrypto.pbkdf2Sync(password, salt, iterations, length, hash)),
  random: (length) => nodeCrypto.randomBytes(length),
};
