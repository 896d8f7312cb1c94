package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
)

// keys are made at the start and live in memory: `data`, `p256` and `ed25519`.
type keys struct {
	data    cipher.AEAD
	p256    *ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
}

type asked struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext []byte `json:"ciphertext,omitempty"`
	Message    []byte `json:"message,omitempty"`
}

type answered struct {
	Key        string `json:"key_id"`
	Version    int    `json:"version"`
	Algorithm  string `json:"algorithm"`
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext []byte `json:"ciphertext,omitempty"`
	Signature  []byte `json:"signature,omitempty"`
}

const gcm = "AES_256_GCM"

func newKeys() (*keys, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return &keys{aead, p256, private}, err
}

// seal encrypts with a random nonce before the ciphertext and the key's name as associated data.
func (k *keys) seal(key string, plaintext []byte) ([]byte, error) {
	nonce := make([]byte, k.data.NonceSize(), k.data.NonceSize()+len(plaintext)+k.data.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return k.data.Seal(nonce, nonce, plaintext, []byte(key)), nil
}

func (k *keys) encrypt(key string, body []byte) (any, int, error) {
	var wanted asked
	if err := readFor(key, "data", body, &wanted); err != nil {
		return nil, 1, err
	}
	sealed, err := k.seal(key, wanted.Plaintext)
	return answered{Key: key, Version: 1, Algorithm: gcm, Ciphertext: sealed}, 1, err
}

func (k *keys) encryptMany(key string, body []byte) (any, int, error) {
	var wanted struct {
		Items []asked `json:"items"`
	}
	if err := readFor(key, "data", body, &wanted); err != nil {
		return nil, 0, err
	}
	results := make([]answered, len(wanted.Items))
	for number, item := range wanted.Items {
		sealed, err := k.seal(key, item.Plaintext)
		if err != nil {
			return nil, number, err
		}
		results[number] = answered{Key: key, Version: 1, Algorithm: gcm, Ciphertext: sealed}
	}
	return map[string]any{"results": results}, len(results), nil
}

func (k *keys) decrypt(key string, body []byte) (any, int, error) {
	var wanted asked
	if err := readFor(key, "data", body, &wanted); err != nil {
		return nil, 1, err
	}
	size := k.data.NonceSize()
	if len(wanted.Ciphertext) < size {
		return nil, 1, errors.New("too short")
	}
	nonce, sealed := wanted.Ciphertext[:size], wanted.Ciphertext[size:]
	plaintext, err := k.data.Open(nil, nonce, sealed, []byte(key))
	return answered{Key: key, Version: 1, Algorithm: gcm, Plaintext: plaintext}, 1, err
}

func (k *keys) dataKey(key string, _ []byte) (any, int, error) {
	if key != "data" {
		return nil, 1, errNoKey
	}
	made := make([]byte, 32)
	if _, err := rand.Read(made); err != nil {
		return nil, 1, err
	}
	sealed, err := k.seal(key, made)
	return answered{Key: key, Version: 1, Algorithm: gcm, Plaintext: made, Ciphertext: sealed}, 1, err
}

func (k *keys) sign(key string, body []byte) (any, int, error) {
	var wanted asked
	if err := json.Unmarshal(body, &wanted); err != nil {
		return nil, 1, err
	}
	switch key {
	case "p256":
		digest := sha256.Sum256(wanted.Message)
		signature, err := ecdsa.SignASN1(rand.Reader, k.p256, digest[:])
		return answered{Key: key, Version: 1, Algorithm: "ECDSA_SHA_256", Signature: signature}, 1, err
	case "ed25519":
		signature := ed25519.Sign(k.ed25519, wanted.Message)
		return answered{Key: key, Version: 1, Algorithm: "ED25519", Signature: signature}, 1, nil
	}
	return nil, 1, errNoKey
}

func readFor(key, wanted string, body []byte, into any) error {
	if key != wanted {
		return errNoKey
	}
	return json.Unmarshal(body, into)
}
