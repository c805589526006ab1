// Compiles Token.sol into token.json: {"Token": {abi, selectors, bytecode}, "Oddities": {…}}.
// usage, from the repository root, with Node and the npm package solc pinned in package.json beside this file:
//   mkdir -p .tools/solc && cp tests/data/evm/package.json .tools/solc
//   npm install --prefix .tools/solc --no-package-lock
//   NODE_PATH=.tools/solc/node_modules node tests/data/evm/compile.js
const fs = require('fs');
const path = require('path');
const solc = require('solc');

const source = fs.readFileSync(path.join(__dirname, 'Token.sol'), 'utf8');
const answer = JSON.parse(solc.compile(JSON.stringify({
  language: 'Solidity',
  sources: { 'Token.sol': { content: source } },
  settings: {
    evmVersion: 'shanghai',
    optimizer: { enabled: true, runs: 1000 },
    metadata: { bytecodeHash: 'none', appendCBOR: false },  // the same bytecode whatever the comments say
    outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.methodIdentifiers'] } },
  },
})));
for (const problem of answer.errors || []) {
  console.error(problem.formattedMessage);
  if (problem.severity === 'error') process.exit(1);
}
const contracts = {};
for (const [name, contract] of Object.entries(answer.contracts['Token.sol'])) {
  const selectors = {};
  for (const [signature, selector] of Object.entries(contract.evm.methodIdentifiers)) selectors[signature] = '0x' + selector;
  contracts[name] = { abi: contract.abi, selectors, bytecode: '0x' + contract.evm.bytecode.object };
}
fs.writeFileSync(path.join(__dirname, 'token.json'), JSON.stringify(contracts, null, 1) + '\n');
console.log(solc.version());
