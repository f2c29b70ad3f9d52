// A jest transformer: the tests name localhost:8000, and that becomes the address of an environment variable.

const { createRequire } = require('node:module');
const { default: tsJest } = createRequire(`${process.cwd()}/`)('ts-jest');

const transformer = tsJest.createTransformer();

module.exports = {
  process(text, path, options) {
    const transformed = transformer.process(text, path, options);
    return { ...transformed, code: transformed.code.replaceAll('localhost:8000', process.env.CENTRIFUGE_ADDRESS) };
  },
};
