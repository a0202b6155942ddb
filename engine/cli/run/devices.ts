/** `-device`, `-global` and `-cpu`: checked against the catalogue. */
import { PHYSICAL_BITS } from '../../x86/system/cpuid.ts';
import {
  busProperties,
  cpuFeatureName,
  cpuFeatures,
  cpuModels,
  type DeviceModel,
  deviceModels,
  type PropertyType,
  unavailableKind,
} from './catalogue.ts';
import { Keyval, OptionError, splitCommas } from './keyval.ts';
import type { DeviceOptions, RunOptions } from './run-options.ts';

export function findDevice(name: string): DeviceModel | undefined {
  return deviceModels.find((model) => model.name === name || model.aliases?.includes(name));
}

const limits = { uint8: 0xff, uint16: 0xffff, uint32: 0xffff_ffff } as const;

function takeProperty(keys: Keyval, key: string, type: PropertyType): string | number | boolean | undefined {
  if (type === 'bool') return keys.flag(key);
  if (type === 'text' || type === 'drive' || type === 'chardev' || type === 'object') return keys.text(key);
  return keys.integer(key, 0, limits[type]);
}

/** The object form of `-device`: JSON in braces, with `driver`. */
function fromJson(text: string): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new OptionError(`-device ${text}: ${(cause as Error).message}`);
  }
  const { driver, ...rest } = value as Record<string, unknown>;
  if (typeof driver !== 'string') throw new OptionError(`-device ${text}: Parameter 'driver' is missing`);
  const doubled = (item: unknown): string => String(item === true ? 'on' : item === false ? 'off' : item).replaceAll(',', ',,');
  return [doubled(driver), ...Object.entries(rest).map(([key, item]) => `${key}=${doubled(item)}`)].join(',');
}

/** Reads `-device MODEL,prop=value...`. Throws an OptionError that names what is not there. */
export function parseDevice(text: string): DeviceOptions {
  const keys = new Keyval(`-device ${text}`, text.startsWith('{') ? fromJson(text) : text, 'driver');
  const name = keys.required('driver');
  const model = findDevice(name);
  if (model === undefined) {
    const kind = unavailableKind(name);
    throw keys.error(
      kind === undefined
        ? `'${name}' is not a valid device model name`
        : `device '${name}' is not in this version${kind === 'it' ? '' : ` (it has no ${kind})`.replace('no this', 'not this')}`,
    );
  }
  const id = keys.text('id');
  const properties: Record<string, string | number | boolean> = {};
  for (const key of keys.rest) {
    const property = model.properties[key];
    if (property !== undefined) properties[key] = takeProperty(keys, key, property.type) as string | number | boolean;
    else if (busProperties[model.bus].includes(key)) properties[key] = keys.text(key) as string;
    else throw keys.error(`Property '${model.name}.${key}' not found`);
  }
  for (const key of model.required ?? []) if (properties[key] === undefined) throw keys.error(`Parameter '${key}' is missing`);
  return { model: model.name, id, properties };
}

/** Reads `-global driver.prop=value` or its long form; the device model must be one of ours. */
export function parseGlobal(text: string): { driver: string; property: string; value: string } {
  const option = `-global ${text}`;
  const short = /^([^.=]+)\.([^=]+)=(.*)$/s.exec(text);
  let driver: string;
  let property: string;
  let value: string;
  if (short !== null) [, driver, property, value] = short;
  else {
    const keys = new Keyval(option, text);
    driver = keys.required('driver');
    property = keys.required('property');
    value = keys.required('value');
    keys.finish();
  }
  const model = findDevice(driver);
  if (model === undefined) throw new OptionError(`${option}: device model '${driver}' is not in this version`);
  if (model.properties[property] === undefined)
    throw new OptionError(`${option}: Property '${model.name}.${property}' not found`);
  return { driver: model.name, property, value };
}

/** Devices with the globals filled in where the device does not say otherwise. */
export function applyGlobals(
  devices: readonly DeviceOptions[],
  globals: readonly { driver: string; property: string; value: string }[],
): DeviceOptions[] {
  return devices.map((device) => {
    const extra: Record<string, string | number | boolean> = {};
    for (const { driver, property, value } of globals) {
      const model = findDevice(driver);
      if (model?.name !== device.model || device.properties[property] !== undefined) continue;
      const keys = new Keyval(`-global ${driver}.${property}`, `${property}=${value.replaceAll(',', ',,')}`);
      extra[property] = takeProperty(keys, property, model.properties[property].type) as string | number | boolean;
    }
    return { ...device, properties: { ...extra, ...device.properties } };
  });
}

/** Reads `-cpu MODEL,+f,-f,f=on`. */
export function parseCpu(draft: Pick<RunOptions, 'cpu'>, text: string): void {
  const option = `-cpu ${text}`;
  const [model, ...changes] = splitCommas(text);
  if (!cpuModels.some(({ name }) => name === model))
    throw new OptionError(`${option}: unable to find CPU model '${model}'; -cpu help lists those there are`);
  let vendor: string | undefined;
  const features = changes
    .filter((change) => {
      const given = /^vendor=(.*)$/.exec(change);
      if (given === null) {
        // An emulated CPU has physical addresses of one width, whatever the host's are.
        const bits = /^phys-bits=(.*)$/.exec(change)?.[1];
        if (bits !== undefined && Number(bits) !== PHYSICAL_BITS)
          throw new OptionError(`${option}: physical addresses have ${PHYSICAL_BITS} bits`);
        return bits === undefined && !/^(check|enforce|host-phys-bits|migratable)(=(on|off|yes|no|true|false))?$/.test(change);
      }
      if (!/^[\x20-\x7e]{12}$/.test(given[1])) throw new OptionError(`${option}: a vendor has 12 characters`);
      vendor = given[1];
      return false;
    })
    .map((change) => {
      const match = /^([+-]?)([\w.-]+?)(?:=(on|off|yes|no|true|false))?$/.exec(change);
      if (match === null || (match[1] !== '' && match[3] !== undefined))
        throw new OptionError(`${option}: '${change}' is no feature (+name, -name, name=on, name=off)`);
      const on = match[1] !== '-' && !['off', 'no', 'false'].includes(match[3]);
      const name = cpuFeatureName(match[2]);
      // A feature that this CPU does not have is off: only asking for it is a mistake.
      if (on && !cpuFeatures.includes(name)) throw new OptionError(`${option}: CPU feature '${match[2]}' is not in this version`);
      return { name, on };
    });
  draft.cpu = { model, features, ...(vendor === undefined ? {} : { vendor }) };
}
