package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

type call struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
}

// refusal is a JSON-RPC error.
type refusal struct {
	code    int
	message string
}

var badParameters = &refusal{-32602, "bad parameters"}

// answer appends the answer to one request or a batch.
func (s *server) answer(body, to []byte) []byte {
	if body = bytes.TrimSpace(body); len(body) == 0 || body[0] != '[' {
		var one call
		if err := json.Unmarshal(body, &one); err != nil {
			return appendRefusal(append(to, `{"jsonrpc":"2.0","id":null`...), &refusal{-32700, "not a JSON-RPC request"})
		}
		s.count(1)
		return s.appendAnswer(to, &one)
	}
	var calls []call
	if err := json.Unmarshal(body, &calls); err != nil || len(calls) == 0 {
		return appendRefusal(append(to, `{"jsonrpc":"2.0","id":null`...), &refusal{-32600, "not a batch"})
	}
	if s.limits.batchMax > 0 && len(calls) > s.limits.batchMax {
		s.served.refuse("batch")
		refused := &refusal{-32600, fmt.Sprintf("a batch may hold %d calls", s.limits.batchMax)}
		return appendRefusal(append(to, `{"jsonrpc":"2.0","id":null`...), refused)
	}
	s.count(len(calls))
	to = append(to, '[')
	for i := range calls {
		if i > 0 {
			to = append(to, ',')
		}
		to = s.appendAnswer(to, &calls[i])
	}
	return append(to, ']')
}

func (s *server) count(calls int) {
	s.served.mutex.Lock()
	s.served.Calls += calls
	if s.limits.latency > 0 {
		s.served.Batches = append(s.served.Batches, calls)
	}
	s.served.mutex.Unlock()
}

func (s *server) appendAnswer(to []byte, asked *call) []byte {
	s.served.mutex.Lock()
	s.served.Methods[asked.Method]++
	s.served.mutex.Unlock()
	to = append(to, `{"jsonrpc":"2.0","id":`...)
	if asked.ID == nil {
		to = append(to, "null"...)
	} else {
		to = append(to, asked.ID...)
	}
	mark := len(to)
	to, refused := s.appendResult(append(to, `,"result":`...), asked)
	if refused != nil {
		return appendRefusal(to[:mark], refused)
	}
	return append(to, '}')
}

func appendRefusal(to []byte, refused *refusal) []byte {
	return fmt.Appendf(to, `,"error":{"code":%d,"message":%q}}`, refused.code, refused.message)
}

func (s *server) appendResult(to []byte, asked *call) ([]byte, *refusal) {
	switch asked.Method {
	case "eth_chainId":
		return fmt.Appendf(to, `"%#x"`, s.chain.id()), nil
	case "net_version":
		return fmt.Appendf(to, `"%d"`, s.chain.id()), nil
	case "web3_clientVersion":
		return fmt.Appendf(to, `%q`, s.chain.client()), nil
	case "eth_blockNumber":
		return fmt.Appendf(to, `"%#x"`, s.chain.head()), nil
	case "eth_syncing":
		return append(to, "false"...), nil
	case "eth_gasPrice":
		return append(to, `"0x3b9aca00"`...), nil
	case "eth_call", "eth_getCode":
		return append(to, `"0x"`...), nil
	case "eth_getBlockByNumber", "eth_getBlockByHash":
		number, known := s.place(asked.Params)
		if !known {
			return append(to, "null"...), nil
		}
		return s.chain.appendBlock(to, number, len(asked.Params) > 1 && string(asked.Params[1]) == "true"), nil
	case "eth_getBlockReceipts":
		number, known := s.place(asked.Params)
		if !known {
			return append(to, "null"...), nil
		}
		return s.chain.appendReceipts(to, number), nil
	case "eth_getTransactionByHash":
		return appendOrNull(to, s.chain.transaction(text(asked.Params, 0))), nil
	case "eth_getTransactionReceipt":
		return appendOrNull(to, s.chain.receipt(text(asked.Params, 0))), nil
	case "eth_getLogs":
		return s.appendLogs(to, asked.Params)
	case "eth_newFilter":
		id := fmt.Sprintf("%#x", s.filter.Add(1))
		s.filters.Store(id, asked.Params)
		return fmt.Appendf(to, "%q", id), nil
	case "eth_getFilterLogs":
		params, known := s.filters.Load(text(asked.Params, 0))
		if !known {
			return to, &refusal{-32000, "filter not found"}
		}
		return s.appendLogs(to, params.([]json.RawMessage))
	case "eth_uninstallFilter":
		return append(to, "true"...), nil
	}
	return to, &refusal{-32601, "the method " + asked.Method + " does not exist"}
}

func appendOrNull(to, found []byte) []byte {
	if found == nil {
		return append(to, "null"...)
	}
	return append(to, found...)
}

func text(params []json.RawMessage, at int) string {
	var found string
	if at < len(params) {
		json.Unmarshal(params[at], &found)
	}
	return found
}

// place is the block that the first parameter names by number, tag or hash; false where it is not there.
func (s *server) place(params []json.RawMessage) (int, bool) {
	name := text(params, 0)
	if len(params) > 0 && len(params[0]) > 0 && params[0][0] == '{' {
		var by struct{ BlockHash, BlockNumber string }
		json.Unmarshal(params[0], &by)
		if name = by.BlockHash; name == "" {
			name = by.BlockNumber
		}
	}
	if len(name) == 66 {
		return s.chain.byHash(name)
	}
	number, ok := s.number(name)
	return number, ok && number >= 0 && number <= s.chain.head()
}

func (s *server) number(name string) (int, bool) {
	switch name {
	case "latest", "pending", "":
		return s.chain.head(), true
	case "earliest":
		return 0, true
	case "safe":
		return s.chain.safe(), true
	case "finalized":
		return s.chain.finalized(), true
	}
	number, err := strconv.ParseInt(strings.TrimPrefix(name, "0x"), 16, 64)
	return int(number), err == nil
}

func (s *server) appendLogs(to []byte, params []json.RawMessage) ([]byte, *refusal) {
	wanted, refused := s.filterOf(params)
	if refused != nil {
		return to, refused
	}
	asked := wanted.last - wanted.first + 1
	if s.limits.rangeMax > 0 && asked > s.limits.rangeMax {
		s.ranged(asked, "range")
		return to, &refusal{-32602, fmt.Sprintf("a range may hold %d blocks", s.limits.rangeMax)}
	}
	to = append(to, '[')
	total := 0
	for number := max(0, wanted.first); number <= min(wanted.last, s.chain.head()); number++ {
		var count int
		to, count = s.chain.appendLogs(to, number, wanted, total == 0)
		total += count
		if s.limits.resultsMax > 0 && total > s.limits.resultsMax {
			s.ranged(asked, "results")
			return to, &refusal{-32005, fmt.Sprintf("more than %d results", s.limits.resultsMax)}
		}
	}
	s.ranged(asked, "")
	s.served.mutex.Lock()
	s.served.Logs += total
	s.served.mutex.Unlock()
	return append(to, ']'), nil
}

// ranged notes a range, and why it was refused.
func (s *server) ranged(blocks int, why string) {
	if why != "" {
		s.served.refuse(why)
	}
	if s.limits.latency > 0 {
		s.served.mutex.Lock()
		s.served.Ranges = append(s.served.Ranges, span{blocks, why == ""})
		s.served.mutex.Unlock()
	}
}

func (s *server) filterOf(params []json.RawMessage) (*filter, *refusal) {
	var asked struct {
		FromBlock, ToBlock, BlockHash string
		Address                       json.RawMessage
		Topics                        []json.RawMessage
	}
	if len(params) == 0 || json.Unmarshal(params[0], &asked) != nil {
		return nil, badParameters
	}
	made := &filter{addresses: choice(asked.Address)}
	for _, topic := range asked.Topics {
		made.topics = append(made.topics, choice(topic))
	}
	if asked.BlockHash != "" {
		number, known := s.chain.byHash(asked.BlockHash)
		made.first, made.last = number, number
		if !known {
			return nil, &refusal{-32000, "unknown block"}
		}
		return made, nil
	}
	first, ok := s.number(asked.FromBlock)
	last, too := s.number(asked.ToBlock)
	made.first, made.last = first, last
	if !ok || !too {
		return nil, badParameters
	}
	return made, nil
}

// choice is one text, a list of them, or nothing, in lower case.
func choice(raw json.RawMessage) map[string]bool {
	var one string
	var several []string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		several = []string{one}
	} else {
		json.Unmarshal(raw, &several)
	}
	found := make(map[string]bool, len(several))
	for _, each := range several {
		found[strings.ToLower(each)] = true
	}
	return found
}
