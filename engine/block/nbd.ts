/**
 * The NBD protocol: a server session fed with bytes, and a client over a blocking stream.
 * Source: the NBD project's doc/proto.md, fixed newstyle negotiation, simple and structured replies, base:allocation.
 */

import { setU64, u64 } from './bytes.ts';
import { chainStatus } from './chain.ts';
import { BlockError, type BlockErrorCode } from './errors.ts';
import type { BlockFile, FileExtent } from './file.ts';
import type { BlockNode } from './node.ts';

const NBDMAGIC = 'NBDMAGIC';
const IHAVEOPT = 'IHAVEOPT';
const REPLY_MAGIC_HIGH = 0x0003e889;
const REPLY_MAGIC_LOW = 0x045565a9;
const REQUEST = 0x25609513;
const SIMPLE_REPLY = 0x67446698;
const STRUCTURED_REPLY = 0x668e33ef;

const FLAG_FIXED_NEWSTYLE = 1;
const FLAG_NO_ZEROES = 2;

const OPT_EXPORT_NAME = 1;
const OPT_ABORT = 2;
const OPT_LIST = 3;
const OPT_INFO = 6;
const OPT_GO = 7;
const OPT_STRUCTURED_REPLY = 8;
const OPT_LIST_META_CONTEXT = 9;
const OPT_SET_META_CONTEXT = 10;

const REP_ACK = 1;
const REP_SERVER = 2;
const REP_INFO = 3;
const REP_META_CONTEXT = 4;
const REP_ERR_UNSUP = 0x80000001;
const REP_ERR_INVALID = 0x80000003;
const REP_ERR_UNKNOWN = 0x80000006;
const REP_ERR_TOO_BIG = 0x80000009;

const INFO_EXPORT = 0;
const INFO_BLOCK_SIZE = 3;

const HAS_FLAGS = 1;
const READ_ONLY = 2;
const SEND_FLUSH = 4;
const SEND_FUA = 8;
const SEND_TRIM = 32;
const SEND_WRITE_ZEROES = 64;
const SEND_DF = 128;

const CMD_READ = 0;
const CMD_WRITE = 1;
const CMD_DISC = 2;
const CMD_FLUSH = 3;
const CMD_TRIM = 4;
const CMD_WRITE_ZEROES = 6;
const CMD_BLOCK_STATUS = 7;
const CMD_FLAG_FUA = 1;
const CMD_FLAG_NO_HOLE = 2;
const CMD_FLAG_DF = 4;
const CMD_FLAG_REQ_ONE = 8;

const CHUNK_DONE = 1;
const CHUNK_NONE = 0;
const CHUNK_OFFSET_DATA = 1;
const CHUNK_OFFSET_HOLE = 2;
const CHUNK_BLOCK_STATUS = 5;
const CHUNK_ERROR = 0x8001;
const CHUNK_ERROR_OFFSET = 0x8002;

const STATE_HOLE = 1;
const STATE_ZERO = 2;
const CONTEXT = 'base:allocation';
const CONTEXT_ID = 1;

const EPERM = 1;
const EIO = 5;
const EINVAL = 22;
const ENOSPC = 28;
const ERRORS: Partial<Record<BlockErrorCode, number>> = {
  'read-only': EPERM,
  permission: EPERM,
  invalid: EINVAL,
  'no-space': ENOSPC,
};

/** Data in one request, either way. */
export const NBD_MAX_REQUEST = 32 << 20;
const MAX_OPTION = 65536;
const MAX_EXTENTS = 4096;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What a server offers, by export name. */
export interface NbdExport {
  node: BlockNode;
  writable: boolean;
}

type State = 'flags' | 'option' | 'request' | 'closed';

/**
 * One client of an NBD server. Bytes go in by `feed`, answers come out by `send`, which says whether there is room for
 * more; when `closed` is true the connection should be shut. A client can do no more than its export allows, and holds at most one request's data in memory.
 */
export class NbdSession {
  private readonly exports: ReadonlyMap<string, NbdExport>;
  private readonly output: (bytes: Uint8Array) => boolean;
  private full = false;
  private state: State = 'flags';
  private buffer = new Uint8Array(4096);
  private filled = 0;
  private noZeroes = false;
  private structured = false;
  private metaFor: string | null = null;
  private current: NbdExport | null = null;
  private status = false;

  constructor(exports: ReadonlyMap<string, NbdExport>, send: (bytes: Uint8Array) => boolean) {
    this.exports = exports;
    this.output = send;
    const hello = new Uint8Array(18);
    hello.set(encoder.encode(NBDMAGIC + IHAVEOPT));
    new DataView(hello.buffer).setUint16(16, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    this.send(hello);
  }

  private send(bytes: Uint8Array): void {
    if (!this.output(bytes)) this.full = true;
  }

  get closed(): boolean {
    return this.state === 'closed';
  }

  /** Takes bytes until there is no room for answers; returns how many it took. Give it the rest when there is room. */
  feed(bytes: Uint8Array): number {
    let taken = 0;
    this.full = false;
    while (taken < bytes.length && !this.closed && !this.full) {
      // Never hold more than the next message needs.
      const need = Math.max(this.needed(), 1);
      if (need > this.buffer.length) {
        const bigger = new Uint8Array(need);
        bigger.set(this.buffer.subarray(0, this.filled));
        this.buffer = bigger;
      }
      const n = Math.min(bytes.length - taken, need - this.filled);
      this.buffer.set(bytes.subarray(taken, taken + n), this.filled);
      this.filled += n;
      taken += n;
      if (this.filled >= this.needed()) this.message();
    }
    return taken;
  }

  private get view(): DataView {
    return new DataView(this.buffer.buffer, 0, this.filled);
  }

  /** Bytes of the message that is coming, as far as it can be told yet. */
  private needed(): number {
    if (this.state === 'flags') return 4;
    if (this.state === 'option') {
      if (this.filled < 16) return 16;
      const length = this.view.getUint32(12);
      return 16 + Math.min(length, MAX_OPTION);
    }
    if (this.filled < 28) return 28;
    return this.view.getUint16(6) === CMD_WRITE ? 28 + Math.min(this.view.getUint32(24), NBD_MAX_REQUEST) : 28;
  }

  private message(): void {
    const message = this.buffer.subarray(0, this.filled);
    const view = this.view;
    this.filled = 0;
    if (this.state === 'flags') {
      this.noZeroes = (view.getUint32(0) & FLAG_NO_ZEROES) !== 0;
      this.state = view.getUint32(0) & ~3 ? 'closed' : 'option';
    } else if (this.state === 'option') this.option(view, message.subarray(16));
    else this.request(view, message);
  }

  private reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): void {
    const out = new Uint8Array(20 + data.length);
    const view = new DataView(out.buffer);
    view.setUint32(0, REPLY_MAGIC_HIGH);
    view.setUint32(4, REPLY_MAGIC_LOW);
    view.setUint32(8, option);
    view.setUint32(12, type);
    view.setUint32(16, data.length);
    out.set(data, 20);
    this.send(out);
  }

  private flagsOf(item: NbdExport): number {
    const write = item.writable && !item.node.readOnly;
    return (
      HAS_FLAGS | SEND_FLUSH | SEND_FUA | (write ? SEND_TRIM | SEND_WRITE_ZEROES : READ_ONLY) | (this.structured ? SEND_DF : 0)
    );
  }

  private option(view: DataView, data: Uint8Array): void {
    if (decoder.decode(this.buffer.subarray(0, 8)) !== IHAVEOPT) {
      this.state = 'closed';
      return;
    }
    const option = view.getUint32(8);
    if (view.getUint32(12) > MAX_OPTION) {
      this.reply(option, REP_ERR_TOO_BIG);
      this.state = 'closed';
      return;
    }
    const body = new DataView(data.buffer, data.byteOffset, data.length);
    switch (option) {
      case OPT_EXPORT_NAME: {
        const item = this.exports.get(decoder.decode(data));
        if (!item) {
          this.state = 'closed';
          return;
        }
        const out = new Uint8Array(this.noZeroes ? 10 : 134);
        setU64(new DataView(out.buffer), 0, item.node.size);
        new DataView(out.buffer).setUint16(8, this.flagsOf(item));
        this.send(out);
        this.enter(decoder.decode(data), item);
        return;
      }
      case OPT_ABORT:
        this.reply(option, REP_ACK);
        this.state = 'closed';
        return;
      case OPT_LIST:
        if (data.length > 0) {
          this.reply(option, REP_ERR_INVALID);
          return;
        }
        for (const name of this.exports.keys()) {
          const bytes = encoder.encode(name);
          const out = new Uint8Array(4 + bytes.length);
          new DataView(out.buffer).setUint32(0, bytes.length);
          out.set(bytes, 4);
          this.reply(option, REP_SERVER, out);
        }
        this.reply(option, REP_ACK);
        return;
      case OPT_INFO:
      case OPT_GO: {
        const length = data.length >= 4 ? body.getUint32(0) : 0;
        if (data.length < 6 || length > data.length - 6) {
          this.reply(option, REP_ERR_INVALID);
          return;
        }
        const name = decoder.decode(data.subarray(4, 4 + length));
        const item = this.exports.get(name);
        if (!item) {
          this.reply(option, REP_ERR_UNKNOWN, encoder.encode(`no export '${name.slice(0, 100)}'`));
          return;
        }
        const info = new Uint8Array(12);
        const infoView = new DataView(info.buffer);
        infoView.setUint16(0, INFO_EXPORT);
        setU64(infoView, 2, item.node.size);
        infoView.setUint16(10, this.flagsOf(item));
        this.reply(option, REP_INFO, info);
        const sizes = new Uint8Array(14);
        const sizesView = new DataView(sizes.buffer);
        sizesView.setUint16(0, INFO_BLOCK_SIZE);
        sizesView.setUint32(2, 1);
        sizesView.setUint32(6, 4096);
        sizesView.setUint32(10, NBD_MAX_REQUEST);
        this.reply(option, REP_INFO, sizes);
        this.reply(option, REP_ACK);
        if (option === OPT_GO) this.enter(name, item);
        return;
      }
      case OPT_STRUCTURED_REPLY:
        this.structured = data.length === 0;
        this.reply(option, this.structured ? REP_ACK : REP_ERR_INVALID);
        return;
      case OPT_LIST_META_CONTEXT:
      case OPT_SET_META_CONTEXT:
        this.metaContext(option, data, body);
        return;
      default:
        this.reply(option, REP_ERR_UNSUP);
    }
  }

  private metaContext(option: number, data: Uint8Array, body: DataView): void {
    const length = data.length >= 8 ? body.getUint32(0) : 0;
    if (!this.structured || data.length < 8 || length > data.length - 8) {
      this.reply(option, REP_ERR_INVALID);
      return;
    }
    const name = decoder.decode(data.subarray(4, 4 + length));
    if (!this.exports.has(name)) {
      this.reply(option, REP_ERR_UNKNOWN);
      return;
    }
    let at = 4 + length;
    let count = body.getUint32(at);
    at += 4;
    let wanted = count === 0 && option === OPT_LIST_META_CONTEXT;
    for (; count > 0 && at + 4 <= data.length; count--) {
      const size = body.getUint32(at);
      if (size > data.length - at - 4) break;
      const query = decoder.decode(data.subarray(at + 4, at + 4 + size));
      if (query === CONTEXT || (query === 'base:' && option === OPT_LIST_META_CONTEXT)) wanted = true;
      at += 4 + size;
    }
    if (count > 0) {
      this.reply(option, REP_ERR_INVALID);
      return;
    }
    if (option === OPT_SET_META_CONTEXT) this.metaFor = wanted ? name : null;
    if (wanted) {
      const out = new Uint8Array(4 + CONTEXT.length);
      new DataView(out.buffer).setUint32(0, option === OPT_SET_META_CONTEXT ? CONTEXT_ID : 0);
      out.set(encoder.encode(CONTEXT), 4);
      this.reply(option, REP_META_CONTEXT, out);
    }
    this.reply(option, REP_ACK);
  }

  private enter(name: string, item: NbdExport): void {
    this.current = item;
    this.status = this.metaFor === name;
    this.state = 'request';
  }

  private simple(view: DataView, error: number, data?: Uint8Array): void {
    const out = new Uint8Array(16 + (data?.length ?? 0));
    const reply = new DataView(out.buffer);
    reply.setUint32(0, SIMPLE_REPLY);
    reply.setUint32(4, error);
    reply.setUint32(8, view.getUint32(8));
    reply.setUint32(12, view.getUint32(12));
    if (data) out.set(data, 16);
    this.send(out);
  }

  private chunk(view: DataView, flags: number, type: number, fill: number): { out: Uint8Array; body: DataView } {
    const out = new Uint8Array(20 + fill);
    const reply = new DataView(out.buffer);
    reply.setUint32(0, STRUCTURED_REPLY);
    reply.setUint16(4, flags);
    reply.setUint16(6, type);
    reply.setUint32(8, view.getUint32(8));
    reply.setUint32(12, view.getUint32(12));
    reply.setUint32(16, fill);
    return { out, body: new DataView(out.buffer, 20) };
  }

  private fail(view: DataView, error: number, message: string): void {
    const type = view.getUint16(6);
    if (!this.structured || (type !== CMD_READ && type !== CMD_BLOCK_STATUS)) {
      this.simple(view, error);
      return;
    }
    const text = encoder.encode(message.slice(0, 200));
    const { out, body } = this.chunk(view, CHUNK_DONE, CHUNK_ERROR, 6 + text.length);
    body.setUint32(0, error);
    body.setUint16(4, text.length);
    out.set(text, 26);
    this.send(out);
  }

  private request(view: DataView, message: Uint8Array): void {
    if (view.getUint32(0) !== REQUEST) {
      this.state = 'closed';
      return;
    }
    const flags = view.getUint16(4);
    const type = view.getUint16(6);
    const offset = u64(view, 16);
    const length = view.getUint32(24);
    if (type === CMD_DISC || (type === CMD_WRITE && length > NBD_MAX_REQUEST)) {
      this.state = 'closed';
      return;
    }
    const { node, writable } = this.current!;
    const changes = type === CMD_WRITE || type === CMD_TRIM || type === CMD_WRITE_ZEROES;
    if (changes && !(writable && !node.readOnly)) return this.fail(view, EPERM, 'the export is read-only');
    if (type !== CMD_FLUSH && !(offset + length <= node.size))
      return this.fail(view, changes ? ENOSPC : EINVAL, 'outside the export');
    try {
      switch (type) {
        case CMD_READ:
          if (length > NBD_MAX_REQUEST) return this.fail(view, EINVAL, 'too long');
          this.read(view, node, flags, offset, length);
          return;
        case CMD_WRITE:
          node.write(offset, message.subarray(28, 28 + length));
          break;
        case CMD_TRIM:
          node.discard(offset, length);
          break;
        case CMD_WRITE_ZEROES:
          node.writeZeroes(offset, length, (flags & CMD_FLAG_NO_HOLE) === 0);
          break;
        case CMD_FLUSH:
          node.flush();
          break;
        case CMD_BLOCK_STATUS:
          if (!this.status || length === 0) return this.fail(view, EINVAL, 'no context was chosen');
          this.blockStatus(view, node, flags, offset, length);
          return;
        default:
          return this.fail(view, EINVAL, 'unknown command');
      }
      if (changes && flags & CMD_FLAG_FUA) node.flush();
      this.simple(view, 0);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.fail(view, ERRORS[error.code] ?? EIO, error.message);
    }
  }

  private read(view: DataView, node: BlockNode, flags: number, offset: number, length: number): void {
    if (!this.structured) {
      const data = new Uint8Array(length);
      node.read(offset, data);
      this.simple(view, 0, data);
      return;
    }
    if (length === 0) {
      this.send(this.chunk(view, CHUNK_DONE, CHUNK_NONE, 0).out);
      return;
    }
    for (let done = 0; done < length; ) {
      const run = flags & CMD_FLAG_DF ? { kind: 'data', length } : chainStatus(node, offset + done, length - done);
      const last = done + run.length >= length ? CHUNK_DONE : 0;
      if (run.kind === 'data') {
        const { out, body } = this.chunk(view, last, CHUNK_OFFSET_DATA, 8 + run.length);
        setU64(body, 0, offset + done);
        node.read(offset + done, out.subarray(28));
        this.send(out);
      } else {
        const { out, body } = this.chunk(view, last, CHUNK_OFFSET_HOLE, 12);
        setU64(body, 0, offset + done);
        body.setUint32(8, run.length);
        this.send(out);
      }
      done += run.length;
    }
  }

  private blockStatus(view: DataView, node: BlockNode, flags: number, offset: number, length: number): void {
    const runs: [number, number][] = [];
    for (let done = 0; done < length && runs.length < MAX_EXTENTS; ) {
      const run = chainStatus(node, offset + done, length - done);
      const state = run.kind === 'data' ? 0 : run.kind === 'zero' ? STATE_ZERO : STATE_ZERO | STATE_HOLE;
      const last = runs[runs.length - 1];
      if (last && last[1] === state) last[0] += run.length;
      else if (runs.length === 1 && flags & CMD_FLAG_REQ_ONE) break;
      else runs.push([run.length, state]);
      done += run.length;
    }
    const { out, body } = this.chunk(view, CHUNK_DONE, CHUNK_BLOCK_STATUS, 4 + runs.length * 8);
    body.setUint32(0, CONTEXT_ID);
    runs.forEach(([size, state], i) => {
      body.setUint32(4 + i * 8, size);
      body.setUint32(8 + i * 8, state);
    });
    this.send(out);
  }
}

/** A connection that blocks. */
export interface ByteStream {
  /** Fills all of `buf`; throws `io` if the other side closes. */
  receive(buf: Uint8Array): void;
  send(bytes: Uint8Array): void;
  close(): void;
}

/** An NBD export as a file: what `nbd:` images lie in. One request at a time. */
export class NbdFile implements BlockFile {
  readonly name: string;
  readonly identity: string;
  readonly readOnly: boolean;
  private readonly stream: ByteStream;
  private readonly length: number;
  private readonly flags: number;
  private structured = false;
  private context = -1;
  private cookie = 0;
  private dead = false;

  /** Negotiates; closes the stream and throws if the server does not have the export or does not let us write. */
  constructor(name: string, stream: ByteStream, exportName: string, write: boolean) {
    this.name = name;
    this.identity = `nbd:${name}`;
    this.stream = stream;
    this.readOnly = !write;
    try {
      const hello = this.take(18);
      const text = decoder.decode(new Uint8Array(hello.buffer, 0, 16));
      if (text !== NBDMAGIC + IHAVEOPT) throw this.bad('it does not speak newstyle NBD');
      const server = hello.getUint16(16);
      if (!(server & FLAG_FIXED_NEWSTYLE)) throw this.bad('it does not speak fixed newstyle NBD');
      const flags = new Uint8Array(4);
      new DataView(flags.buffer).setUint32(0, server & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
      stream.send(flags);
      const encoded = encoder.encode(exportName);
      this.structured = this.option(OPT_STRUCTURED_REPLY, new Uint8Array(0), () => {});
      if (this.structured) {
        const query = encoder.encode(CONTEXT);
        const data = new Uint8Array(12 + encoded.length + query.length);
        const view = new DataView(data.buffer);
        view.setUint32(0, encoded.length);
        data.set(encoded, 4);
        view.setUint32(4 + encoded.length, 1);
        view.setUint32(8 + encoded.length, query.length);
        data.set(query, 12 + encoded.length);
        this.option(OPT_SET_META_CONTEXT, data, (type, body) => {
          if (type === REP_META_CONTEXT && body.byteLength >= 4) this.context = body.getUint32(0);
        });
      }
      const go = new Uint8Array(6 + encoded.length);
      new DataView(go.buffer).setUint32(0, encoded.length);
      go.set(encoded, 4);
      let size = -1;
      let exportFlags = 0;
      const went = this.option(OPT_GO, go, (type, body) => {
        if (type === REP_INFO && body.byteLength >= 12 && body.getUint16(0) === INFO_EXPORT) {
          size = u64(body, 2);
          exportFlags = body.getUint16(10);
        }
      });
      if (!went || !(size >= 0 && size <= Number.MAX_SAFE_INTEGER))
        throw new BlockError('not-found', `${name}: the NBD server has no export '${exportName}'`);
      this.length = size;
      this.flags = exportFlags;
      if (write && exportFlags & READ_ONLY) throw new BlockError('read-only', `${name}: the NBD export is read-only`);
    } catch (error) {
      stream.close();
      throw error;
    }
  }

  private bad(what: string): BlockError {
    this.dead = true;
    return new BlockError('io', `${this.name}: the NBD server cannot be talked to: ${what}`);
  }

  private take(length: number): DataView {
    const bytes = new Uint8Array(length);
    this.stream.receive(bytes);
    return new DataView(bytes.buffer);
  }

  /** Sends an option and reads its replies; true if it ended in an acknowledgement. */
  private option(option: number, data: Uint8Array, each: (type: number, body: DataView) => void): boolean {
    const out = new Uint8Array(16 + data.length);
    const view = new DataView(out.buffer);
    out.set(encoder.encode(IHAVEOPT));
    view.setUint32(8, option);
    view.setUint32(12, data.length);
    out.set(data, 16);
    this.stream.send(out);
    for (let replies = 0; replies < 1000; replies++) {
      const head = this.take(20);
      if (head.getUint32(0) !== REPLY_MAGIC_HIGH || head.getUint32(4) !== REPLY_MAGIC_LOW || head.getUint32(8) !== option)
        throw this.bad('wrong reply');
      const type = head.getUint32(12);
      const length = head.getUint32(16);
      if (length > MAX_OPTION) throw this.bad('reply too long');
      const body = this.take(length);
      if (type === REP_ACK) return true;
      if (type & 0x80000000) return false;
      each(type, body);
    }
    throw this.bad('too many replies');
  }

  /** One request and its answer; data of a read goes into `into`. */
  private command(
    type: number,
    flags: number,
    offset: number,
    length: number,
    data: Uint8Array | null,
    into: Uint8Array | null,
    status?: (run: number, state: number) => void,
  ): void {
    if (this.dead) throw new BlockError('io', `${this.name}: the NBD connection is broken`);
    const head = new Uint8Array(28);
    const view = new DataView(head.buffer);
    const cookie = ++this.cookie;
    view.setUint32(0, REQUEST);
    view.setUint16(4, flags);
    view.setUint16(6, type);
    setU64(view, 8, cookie);
    setU64(view, 16, offset);
    view.setUint32(24, length);
    try {
      this.stream.send(head);
      if (data) this.stream.send(data);
      this.answer(cookie, offset, into, status);
    } catch (error) {
      if (error instanceof BlockError && error.code === 'io' && !(error as { remote?: boolean }).remote) this.dead = true;
      throw error;
    }
  }

  private remoteError(error: number, message = ''): BlockError {
    const code: BlockErrorCode =
      error === ENOSPC ? 'no-space' : error === EPERM ? 'read-only' : error === EINVAL ? 'invalid' : 'io';
    return Object.assign(
      new BlockError(code, `${this.name}: the NBD server reports error ${error}${message ? `: ${message}` : ''}`),
      { remote: true },
    );
  }

  private answer(cookie: number, offset: number, into: Uint8Array | null, status?: (run: number, state: number) => void): void {
    let failure: BlockError | null = null;
    let covered = 0;
    for (let chunks = 0; chunks < 1_000_000; chunks++) {
      const magic = this.take(4).getUint32(0);
      if (magic === SIMPLE_REPLY) {
        const head = this.take(12);
        if (u64(head, 4) !== cookie) throw this.bad('an answer to nothing');
        const error = head.getUint32(0);
        if (error) throw this.remoteError(error);
        if (into) {
          if (this.structured) throw this.bad('a simple reply to a read');
          this.stream.receive(into);
        }
        return;
      }
      if (magic !== STRUCTURED_REPLY || !this.structured) throw this.bad('wrong magic');
      const head = this.take(16);
      const flags = head.getUint16(0);
      const type = head.getUint16(2);
      const length = head.getUint32(12);
      if (u64(head, 4) !== cookie || length > NBD_MAX_REQUEST + 64) throw this.bad('wrong chunk');
      if (type === CHUNK_OFFSET_DATA && into && length > 8) {
        const at = u64(this.take(8), 0) - offset;
        if (!(at >= 0 && at + length - 8 <= into.length)) throw this.bad('data outside the request');
        this.stream.receive(into.subarray(at, at + length - 8));
        covered += length - 8;
      } else if (type === CHUNK_OFFSET_HOLE && into && length === 12) {
        const body = this.take(12);
        const at = u64(body, 0) - offset;
        const n = body.getUint32(8);
        if (!(at >= 0 && at + n <= into.length)) throw this.bad('a hole outside the request');
        into.fill(0, at, at + n);
        covered += n;
      } else {
        const body = this.take(length);
        if (type === CHUNK_BLOCK_STATUS && status && length >= 12) {
          if (body.getUint32(0) === this.context)
            for (let at = 4; at + 8 <= length; at += 8) status(body.getUint32(at), body.getUint32(at + 4));
        } else if (type === CHUNK_ERROR || type === CHUNK_ERROR_OFFSET) {
          const text = length >= 6 ? decoder.decode(new Uint8Array(body.buffer, 6, Math.min(length - 6, body.getUint16(4)))) : '';
          failure ??= this.remoteError(length >= 4 ? body.getUint32(0) : EIO, text);
        } else if (type & 0x8000) failure ??= this.remoteError(EIO);
        else if (type !== CHUNK_NONE) throw this.bad(`unknown chunk ${type}`);
      }
      if (flags & CHUNK_DONE) {
        if (failure) throw failure;
        if (into && covered < into.length) throw this.bad('a read was answered in part');
        return;
      }
    }
    throw this.bad('too many chunks');
  }

  size(): number {
    return this.length;
  }

  pread(buf: Uint8Array, offset: number): void {
    const inside = Math.max(0, Math.min(buf.length, this.length - offset));
    for (let done = 0; done < inside; done += NBD_MAX_REQUEST) {
      const part = buf.subarray(done, Math.min(inside, done + NBD_MAX_REQUEST));
      this.command(CMD_READ, 0, offset + done, part.length, null, part);
    }
    if (inside < buf.length) buf.fill(0, inside);
  }

  pwrite(buf: Uint8Array, offset: number): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.name}: opened read-only`);
    if (offset + buf.length > this.length) throw new BlockError('no-space', `${this.name}: the NBD export cannot grow`);
    for (let done = 0; done < buf.length; done += NBD_MAX_REQUEST) {
      const part = buf.subarray(done, Math.min(buf.length, done + NBD_MAX_REQUEST));
      this.command(CMD_WRITE, 0, offset + done, part.length, part, null);
    }
  }

  flush(): void {
    if (!this.readOnly && this.flags & SEND_FLUSH) this.command(CMD_FLUSH, 0, 0, 0, null, null);
  }

  truncate(size: number): void {
    if (size > this.length) throw new BlockError('no-space', `${this.name}: the NBD export cannot grow`);
  }

  private ranged(type: number, flags: number, offset: number, length: number): void {
    const end = Math.min(offset + length, this.length);
    const step = 1 << 30;
    for (let at = offset; at < end; at += step) this.command(type, flags, at, Math.min(step, end - at), null, null);
  }

  discard(offset: number, length: number): void {
    if (!this.readOnly && this.flags & SEND_TRIM) this.ranged(CMD_TRIM, 0, offset, length);
  }

  writeZeroes(offset: number, length: number): void {
    if (offset + length > this.length) throw new BlockError('no-space', `${this.name}: the NBD export cannot grow`);
    if (this.flags & SEND_WRITE_ZEROES) {
      this.ranged(CMD_WRITE_ZEROES, 0, offset, length);
      return;
    }
    const zeroes = new Uint8Array(Math.min(length, 1 << 20));
    for (let done = 0; done < length; done += zeroes.length)
      this.pwrite(zeroes.subarray(0, Math.min(zeroes.length, length - done)), offset + done);
  }

  allocate(offset: number, length: number): void {
    this.truncate(offset + length);
  }

  extent(offset: number, length: number): FileExtent {
    if (this.context < 0 || offset >= this.length) return { data: true, length };
    const want = Math.min(length, this.length - offset, 0xffff0000);
    let first: FileExtent | null = null;
    this.command(CMD_BLOCK_STATUS, CMD_FLAG_REQ_ONE, offset, want, null, null, (run, state) => {
      if (!first && run > 0) first = { data: (state & STATE_ZERO) === 0, length: Math.min(run, want) };
    });
    return first ?? { data: true, length: want };
  }

  allocated(): undefined {
    return undefined;
  }

  close(): void {
    if (!this.dead) {
      const head = new Uint8Array(28);
      const view = new DataView(head.buffer);
      view.setUint32(0, REQUEST);
      view.setUint16(6, CMD_DISC);
      try {
        this.stream.send(head);
      } catch {
        // The server is gone already.
      }
    }
    this.dead = true;
    this.stream.close();
  }
}

/** Where an export is: `nbd://host[:port]/name`, `nbd+unix:///name?socket=path`, `nbd:host:port[:exportname=name]`, `nbd:unix:path[...]`. */
export interface NbdAddress {
  unix?: string;
  host?: string;
  port?: number;
  exportName: string;
}

export const NBD_PORT = 10809;

/** Throws `invalid` if it is none of the forms. */
export function parseNbdAddress(text: string): NbdAddress {
  const url = /^nbd:\/\/(\[[^\]]+\]|[^:/?]*)(?::(\d+))?(?:\/([^?]*))?$/.exec(text);
  if (url)
    return {
      host: url[1].replace(/^\[|\]$/g, '') || 'localhost',
      port: Number(url[2] ?? NBD_PORT),
      exportName: decodeURIComponent(url[3] ?? ''),
    };
  const unix = /^nbd\+unix:\/\/\/([^?]*)\?socket=(.+)$/.exec(text);
  if (unix) return { unix: decodeURIComponent(unix[2]), exportName: decodeURIComponent(unix[1]) };
  const old = /^nbd:(?:unix:(.+?)|([^:]+):(\d+))(?::exportname=(.*))?$/.exec(text);
  if (old) return { unix: old[1], host: old[2], port: old[3] ? Number(old[3]) : undefined, exportName: old[4] ?? '' };
  throw new BlockError('invalid', `'${text}' is not an NBD address`);
}
