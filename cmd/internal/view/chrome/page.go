package chrome

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Navigate opens an address.
func (b *Browser) Navigate(ctx context.Context, url string) error {
	var r struct{ ErrorText string }
	if err := b.Call(ctx, "Page.navigate", map[string]any{"url": url}, &r); err != nil {
		return err
	}
	if r.ErrorText != "" {
		return fmt.Errorf("%s: %s", url, r.ErrorText)
	}
	return nil
}

// Eval evaluates an expression in the page, and a promise to its end, into v.
func (b *Browser) Eval(ctx context.Context, expression string, v any) error {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	err := b.Call(ctx, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	switch {
	case err != nil:
		return err
	case r.ExceptionDetails != nil:
		return errors.New(r.ExceptionDetails.Text + " " + r.ExceptionDetails.Exception.Description)
	case v == nil || len(r.Result.Value) == 0:
		return nil
	}
	return json.Unmarshal(r.Result.Value, v)
}

// askEvery is how often Wait asks.
const askEvery = 50 * time.Millisecond

// Wait waits until an expression is true; one that fails, for what it asks of
// is not there yet, is not.
func (b *Browser) Wait(ctx context.Context, expression string) error {
	for {
		var yes bool
		if err := b.Eval(ctx, "(() => { try { return Boolean("+expression+") } catch { return false } })()", &yes); err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it never came to be that %s", expression)
		case <-time.After(askEvery):
		}
	}
}

// Keys presses the keys of a text, one after the other.
func (b *Browser) Keys(ctx context.Context, s string) error {
	for _, r := range s {
		key := string(r)
		if r == '\n' {
			key = "Enter"
		}
		if err := b.Press(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// Press presses and releases a key: "Enter", "F6" or a character.
func (b *Browser) Press(ctx context.Context, key string) error {
	code, text := map[string]int{"Enter": 13, "Tab": 9, "Escape": 27, "F6": 117, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key], ""
	switch {
	case key == "Enter":
		text = "\r"
	case code == 0:
		text = key
	}
	p := map[string]any{"type": "keyDown", "key": key, "windowsVirtualKeyCode": code}
	if text != "" {
		p["text"] = text
	}
	if err := b.Call(ctx, "Input.dispatchKeyEvent", p, nil); err != nil {
		return err
	}
	return b.Call(ctx, "Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}, nil)
}

// Scheme makes the page believe that its user prefers "light" or "dark".
func (b *Browser) Scheme(ctx context.Context, scheme string) error {
	return b.Call(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Screenshot is the page as a PNG.
func (b *Browser) Screenshot(ctx context.Context) ([]byte, error) {
	var r struct{ Data []byte }
	err := b.Call(ctx, "Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	return r.Data, err
}
