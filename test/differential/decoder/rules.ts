/** Where the decoder and objdump may differ, and why. What is said of silicon was tried with test/differential/cpu. */
import type { Row } from '../../../engine/x86/decode/rows.ts';
import type { Width } from './encodings.ts';

/** Extensions that this CPU does not have, by objdump's mnemonics: #UD. */
const OTHER_EXTENSIONS: readonly (readonly [string, RegExp])[] = [
  ['3DNow! (AMD)', /^(femms|p[fi]\w+|pavgusb|pmulhrw|pswapd)$/],
  ['SSE4a (AMD)', /^(extrq|insertq|movnts[sd])$/],
  [
    'FMA4 and XOP (AMD)',
    /^(vfn?m(add|sub)[ps][sd]|vfm(addsub|subadd)p[sd]|vpermil2p[sd]|v?p(com|rot|sha|shl|macs|madcs|hadd|hsub|perm|cmov)\w*|vfrcz\w+|bl[cs]\w+|t1mskc|tzmsk|bextr|[ls]lwpcb|lwp\w+)$/,
  ],
  [
    'VMX, SVM, SMX, SGX',
    /^(vm\w+|getsec|inv(ept|vpid|lpgab?)|skinit|stgi|clgi|encl[suv]|rmp\w+|psmash|pvalidate|seam\w+|tdcall)$/,
  ],
  ['GFNI, SHA512, SM3, SM4', /^v?(gf2p8|sha512|sm[34])\w+$/],
  ['CET', /^(wru?ss[dq]|rdssp[dq]|incssp[dq]|saveprevssp|rstorssp|(set|clr)ssbsy)$/],
  ['stores without a cache, and to a device', /^(movdir\w+|enqcmds?)$/],
  ['RAO-INT, CMPCCXADD', /^(a(add|and|or|xor)|cmp\w+xadd)$/],
  ['key locker', /^(aes(enc|dec)\w*kl|encodekey\d+|loadiwkey)$/],
  ['TSX', /^(x(test|beginw?|end|abort|susldtrk|resldtrk))$/],
  [
    'waiting and tracing: WAITPKG, MONITORX, PTWRITE, SERIALIZE, UINTR, PCONFIG',
    /^(tpause|u?mwaitx?|umonitor|monitorx|ptwrite|serialize|hreset|senduipi|uiret|testui|clui|stui|pconfig|wbnoinvd|clzero|rdpru|mcommit|(inv|tlb)\w*sync|invlpgb|prefetchit\d)$/,
  ],
  ['PadLock (VIA)', /^(x(store|crypt|sha)[\w-]*|montmul)$/],
  ['AVX-512 and its masks', /^(k(mov|and|andn|not|or|xnor|xor|add|unpck|ortest|test|shift[lr])[bwdq]+)$/],
  ['AVX-VNNI, AVX-IFMA, AVX-NE-CONVERT', /^(\{vex\}|vpdp\w+|vcvtne\w+|vbcstne\w+|vpmadd52\w+)$/],
  ['AMX', /^(t(dp\w+|ile\w+)|ldtilecfg|sttilecfg)$/],
  ['cldemote and other hints that are NOPs with a prefix, or not there', /^(cldemote|nop)$/],
  ['MSR lists, user-level MSRs', /^(rdmsrlist|wrmsrlist|wrmsrns|u(rd|wr)msr)$/],
];
/** Only with the prefixes that the SDM gives: others are #UD on silicon, objdump prints them. */
const STRICT_PREFIX =
  /^(fx(save|rstor)(64)?|x(save|rstor)(s|c|opt)?(64)?|v?(ld|st)mxcsr|vzero(upper|all)|clflush(opt)?|clwb|[lms]fence|rd(rand|seed|pid)|(rd|wr)[fg]sbase|movbe|movnti|emms|[lg]dt|x[gs]etbv|clac|stac|adcx|adox|sha\w+|wbinvd|mwait|monitor|swapgs|pmovmskb|cmpxchg(8|16)b)$/;

/** The reason why a difference is none, or undefined. `text` is objdump's, without prefixes. */
export function knownDifference(width: Width, bytes: readonly number[], row: Row | undefined, text: string): string | undefined {
  const mnemonic = text.split(/[ ,]/)[0];
  if (row === undefined) {
    if (/^vp(extr|insr)[dq]$/.test(mnemonic) && width !== 64)
      return 'VPEXTR and VPINSR with VEX.W outside 64-bit mode: #UD on silicon';
    if (/^mov$/.test(mnemonic) && (text.includes('?') || /^mov +cs,/.test(text)))
      return 'segment registers that there are not, and CS, which is not loaded so';
    if (STRICT_PREFIX.test(mnemonic)) return 'prefixes that make it #UD on silicon';
    if (/^mov$/.test(mnemonic) && /\b[cdt]r\d/.test(text))
      return 'test registers of the 386; control and debug registers that there are not';
    // EVEX prefixes look like BOUND's opcode.
    if (bytes.find((byte) => byte !== 0x66 && byte !== 0x67 && byte !== 0xf2 && byte !== 0xf3) === 0x62) return 'AVX-512';
    return OTHER_EXTENSIONS.find(([, names]) => names.test(mnemonic))?.[0];
  }
  switch (row.mnemonic) {
    case 'X87':
      return 'x87 opcodes that there are not: decoded, and #UD when they run';
    case 'NOP':
      return 'hint NOPs that objdump takes for MPX, or for prefetches of registers';
    case 'FWAIT':
      return 'objdump takes FWAIT and the x87 instruction after it for one';
    case 'SALC':
    case 'UD':
      return 'opcodes that the SDM says little of: SALC, UD0, UD1';
    case 'WBINVD':
    case 'FENCE':
    case 'BSF':
    case 'BSR':
      return 'prefixes and ModRM bits that silicon takes no notice of';
    case 'VMCALL':
      return 'an address-size prefix on VMCALL, which has no address';
    case 'JCC':
    case 'JMP':
    case 'CALL':
      if (width === 64 && bytes.includes(0x66))
        return 'near branches with an operand-size prefix in 64-bit mode: objdump reads them as AMD does';
      break;
    default:
  }
  if (row.attributes.has('vsib') && text.includes('(bad)')) return 'gathers whose registers are not different: #UD when they run';
  return undefined;
}
