// Reads the whole header with koffi and finds every function in the library. Arguments: header, library, names.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const koffi = require('koffi');

const [header, library, ...names] = process.argv.slice(2);
const text = fs.readFileSync(header, 'utf8').replace(/\s+/g, ' ');
for (const [, name] of text.matchAll(/typedef struct (\w+) \1;/g)) koffi.opaque(name);
for (const [, type, name] of text.matchAll(/typedef (int32_t) (\w+);/g)) koffi.alias(name, type);
for (const [, gives, name, takes] of text.matchAll(/typedef (\w+) \(\*(\w+)\)\(([^)]*)\);/g)) {
  koffi.alias(name, koffi.pointer(koffi.proto(`${gives} ${name}_function(${takes})`)));
}
for (const [name, size] of [['vigie_node', 24], ['vigie_event', 64]]) {
  const [, fields] = text.match(new RegExp(`typedef struct \\{([^}]*)\\} ${name};`));
  const members = [...fields.matchAll(/([^;]*\W)(\w+);/g)].map(([, type, field]) => [field, type.trim()]);
  assert.strictEqual(koffi.sizeof(koffi.struct(name, Object.fromEntries(members))), size);
}

const lib = koffi.load(library);
const functions = {};
const declarations = text.replace(/typedef enum \{[^}]*\} \w+;|typedef struct \{[^}]*\} \w+;|typedef [^;]*;/g, '');
for (const [, prototype] of declarations.matchAll(/([\w][\w *]*\bvigie_\w+\([^;]*\));/g)) {
  functions[prototype.match(/(vigie_\w+)\(/)[1]] = lib.func(prototype);
}
assert.deepStrictEqual(Object.keys(functions).sort(), names);
assert.strictEqual(functions.vigie_status_name(-103), 'VIGIE_ERR_TIMEOUT');
console.log(functions.vigie_version());
