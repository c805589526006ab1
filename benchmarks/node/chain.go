package main

// chain is what the node serves. Blocks are numbered 0 to head(); what is appended is JSON.
type chain interface {
	id() int
	client() string
	head() int
	safe() int
	finalized() int
	// byHash finds a block's number; false where there is no such block.
	byHash(hash string) (int, bool)
	appendBlock(to []byte, number int, full bool) []byte
	appendReceipts(to []byte, number int) []byte
	// appendLogs appends the matching logs of a block, each but the very first of the answer after a comma.
	appendLogs(to []byte, number int, wanted *filter, first bool) ([]byte, int)
	// transaction and receipt by transaction hash; nil where there is none.
	transaction(hash string) []byte
	receipt(hash string) []byte
	// truth is JSON: what an indexer of every Transfer must have found; null where the chain was recorded.
	truth() []byte
}

// filter is that of eth_getLogs. Addresses and topics are lower-case text; nil or empty matches anything.
type filter struct {
	first, last int
	addresses   map[string]bool
	topics      []map[string]bool
}

func (f *filter) matches(address string, topics []string) bool {
	if len(f.addresses) > 0 && !f.addresses[address] {
		return false
	}
	if len(f.topics) > len(topics) {
		return false
	}
	for i, choice := range f.topics {
		if len(choice) > 0 && !choice[topics[i]] {
			return false
		}
	}
	return true
}
